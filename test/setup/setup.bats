#!/usr/bin/env bats
# Functions of setup.sh and deploy/setup/, each on its own: no root, no network, nothing outside of a folder of the
# test's. What they do together on a machine: test/fresh/setup.sh.
# shellcheck disable=SC1090,SC2016,SC2034,SC2030,SC2031,SC2317 # variables of the functions under test; each test is a subshell

bats_require_minimum_version 1.5.0

setup() {
  repository=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
  # Everything but the last line, which would start it.
  sed '$d' "$repository/setup.sh" >"$BATS_TEST_TMPDIR/setup-functions.sh"
  # shellcheck source=/dev/null
  . "$BATS_TEST_TMPDIR/setup-functions.sh"
  OPT=$BATS_TEST_TMPDIR/opt ETC=$BATS_TEST_TMPDIR/etc work=$BATS_TEST_TMPDIR/work
  INSTALLED=$ETC/installed ENV_FILE=$ETC/millrace.env SECRETS_FILE=$ETC/secrets.encrypted.yaml
  DATA=$BATS_TEST_TMPDIR/data LOG=$BATS_TEST_TMPDIR/log
  mkdir -p "$OPT/bin" "$ETC" "$work"
  exec 8>>"$LOG"
  for part in "$repository"/deploy/setup/*.sh; do
    # shellcheck source=/dev/null
    . "$part"
  done
  AGE_KEY=$ETC/age.key
  release=$repository
  web=caddy
}

@test "half of a download runs nothing, wherever it ends" {
  size=$(wc -c <"$repository/setup.sh")
  # Each of the last bytes, where the call stands, and some from before.
  for end in 100 5000 15000 $(seq $((size - 20)) $((size - 3))); do
    head -c "$end" "$repository/setup.sh" >"$BATS_TEST_TMPDIR/part"
    run as_nobody bash -s -- --help <"$BATS_TEST_TMPDIR/part"
    [[ -z $output || $output == *'syntax error'* || $output == *'unexpected EOF'* ]]
  done
  run bash -s -- --help <"$repository/setup.sh"
  [ "$status" -eq 0 ]
  [[ $output == *Usage* ]]
}
as_nobody() {
  if [ "$EUID" -eq 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi
}

@test "another shell is told what is needed" {
  run sh "$repository/setup.sh" --help
  [ "$status" -eq 1 ]
  [[ $output == *'needs bash'* ]]
}

@test "--dry-run needs no root, asks nothing, and prints each step on a line" {
  run as_nobody env -u HOME bash -s -- --dry-run <"$repository/setup.sh"
  [ "$status" -eq 0 ]
  for step in "${STEPS[@]}"; do grep -qP "^$step\t\S" <<<"$output"; done
  grep -qP '^problem\tMAIL_DOMAIN is not set' <<<"$output"
}

@test "without root it says how, and an option that is not there is named" {
  MILLRACE_UNATTENDED=1 run as_nobody bash <"$repository/setup.sh"
  [ "$status" -eq 1 ]
  [[ $output == *'needs root'*'sudo --preserve-env=NAME'* ]]
  run bash "$repository/setup.sh" --frobnicate
  [ "$status" -eq 1 ]
  [[ $output == *--frobnicate* ]]
}

@test "everything that is missing or malformed is listed at once" {
  problems=()
  MAIL_DOMAIN='not a domain' PUBLIC_URL=mail.example.com RESEND_API_KEY='re_with a space' STREAMS=s2 MILLRACE_REPO=
  run check_and_stop
  [ "$status" -eq 1 ]
  for name in MAIL_DOMAIN PUBLIC_URL RESEND_API_KEY S2_ACCESS_TOKEN MILLRACE_REPO; do [[ $output == *"$name"* ]]; done
  [[ $output != *'a space'* ]]
}
check_and_stop() {
  check_answers
  stop_at_problems 'Not so:'
}

@test "questions are asked at the terminal, though the script comes through a pipe" {
  command -v script >/dev/null || skip 'there is no script(1)'
  cat >"$BATS_TEST_TMPDIR/asking.sh" <<'ASKING'
. "$1"
problems=()
MILLRACE_REPO=/srv/millrace
ask_answers
check_answers
stop_at_problems 'Not so:'
printf '<%s>\n' "$MAIL_DOMAIN" "$PUBLIC_URL" "${#RESEND_API_KEY}" "$STREAMS" "${S2_LITE:-}" "${TOOLS_REPO:-}"
ASKING
  # The second domain is the right one; the URL and the tools are left as they are proposed.
  run bash -c 'printf "%s\n" nonsense example.com "" re_hiddenkey s2-lite "" | script -qec "cat $1 | bash -s - $2" /dev/null' \
    - "$BATS_TEST_TMPDIR/asking.sh" "$BATS_TEST_TMPDIR/setup-functions.sh"
  [ "$status" -eq 0 ]
  output=${output//$'\r'/}
  [[ $output == *'That is not right'* ]]
  [[ $output == *$'<example.com>\n<https://millrace.example.com>\n<12>\n<s2>\n<1>\n<>'* ]]
}

@test "domains and URLs as people write them" {
  for MAIL_DOMAIN in example.com 'example.com, example.org' agents.example.co.uk bücher.example; do is_valid MAIL_DOMAIN; done
  for MAIL_DOMAIN in example 'example.com example.org' a@example.com https://example.com; do run ! is_valid MAIL_DOMAIN; done
  for PUBLIC_URL in https://mail.example.com https://mail.example.com:8443 http://127.0.0.1:8080; do is_valid PUBLIC_URL; done
  for PUBLIC_URL in mail.example.com https://a/b https://me:word@example.com ftp://example.com; do run ! is_valid PUBLIC_URL; done
}

@test "tools come from where a service can look" {
  for TOOLS_REPO in https://github.com/you/tools git@github.com:you/tools.git /srv/tools.git file:///var/lib/tools.git; do is_valid TOOLS_REPO; done
  for TOOLS_REPO in /root/tools.git /home/you/tools file:///tmp/tools.git; do run ! is_valid TOOLS_REPO; done
}

@test "a file is written when it differs, and left alone when it does not" {
  echo one | install_file "$ETC/file" 0640
  [ "$(stat -c %a "$ETC/file")" = 640 ]
  has_changed
  rm "$OPT/changed"
  before=$(stat -c '%i %Y' "$ETC/file")
  echo one | install_file "$ETC/file" 0640
  run ! has_changed
  [ "$(stat -c '%i %Y' "$ETC/file")" = "$before" ]
  echo two | install_file "$ETC/file" 0640
  has_changed
  [ "$(grep -c "path $ETC/file" "$INSTALLED")" -eq 1 ]
}

@test "a command that fails shows the end of what it said, one that works shows nothing" {
  run quietly 'the command' bash -c 'seq 1000'
  [ -z "$output" ]
  run quietly 'the command' bash -c 'seq 1000; exit 3'
  [ "$status" -eq 1 ]
  [[ $output == *'| 1000'* && $output != *'| 900'* && $output == *'did not work'* ]]
  grep -q 500 "$LOG"
}

@test "millrace.env keeps what else stands in it, and is read back" {
  printf '# mine\nNODE_OPTIONS=--trace\nMAIL_DOMAIN=old.example.com\n' >"$ENV_FILE"
  MAIL_DOMAIN='example.com, example.org' PUBLIC_URL=https://mail.example.com TOOLS_PATH=/etc/millrace/tools
  text=$(env_lines)
  [[ $text == *'# mine'*NODE_OPTIONS=--trace*'MAIL_DOMAIN="example.com, example.org"'*PUBLIC_URL=https://mail.example.com* ]]
  printf '%s\n' "$text" >"$ENV_FILE"
  [ "$(env_lines)" = "$text" ]
  unset MAIL_DOMAIN PUBLIC_URL
  load_installed_answers
  [ "$MAIL_DOMAIN" = 'example.com, example.org' ]
  # A shell reads the same.
  [ "$(set -a && . "$ENV_FILE" && printf %s "$MAIL_DOMAIN")" = "$MAIL_DOMAIN" ]
}

# It was lost, from the file as well as from the answers.
@test "the last line of millrace.env counts without a line end, too" {
  printf 'PUBLIC_URL=https://mail.example.com\nMAIL_DOMAIN=example.com' >"$ENV_FILE"
  load_installed_answers
  [ "$MAIL_DOMAIN" = example.com ]
  printf 'PUBLIC_URL=https://mail.example.com\nNODE_OPTIONS=--trace' >"$ENV_FILE"
  [[ $(env_lines) == *NODE_OPTIONS=--trace* ]]
}

@test "data lies where the units may write" {
  DATA=/var/lib/millrace
  for DATA_DIR in /var/lib/millrace /var/lib/millrace/ /var/lib/millrace/data; do is_valid DATA_DIR; done
  for DATA_DIR in /srv/mail ./data data /var/lib/millrace2 /var/lib/millrace/../mail /var/lib/millrace/s2 /; do run ! is_valid DATA_DIR; done
  problems=()
  MAIL_DOMAIN=example.com PUBLIC_URL=https://mail.example.com RESEND_API_KEY=re_one MILLRACE_REPO=/srv/millrace DATA_DIR=/srv/mail
  check_answers
  [[ ${problems[*]} == 'DATA_DIR is not right'*'/var/lib/millrace, or a folder below it'* ]]
}

@test "what is more than a word is written so that the next run reads it back, and a shell runs none of it" {
  MAIL_DOMAIN=example.com TOOLS_PATH='the "tools" of $HOME, `id` and \n'
  TOOLS_SSH_KNOWN_HOSTS=$'git.example.com ssh-ed25519 AAAA\ngit.example.com ecdsa BBBB'
  text=$(env_lines)
  [ "$(grep -c TOOLS_ <<<"$text")" -eq 2 ]
  printf '%s\n' "$text" >"$ENV_FILE"
  before=$TOOLS_PATH$TOOLS_SSH_KNOWN_HOSTS
  [ "$(env -i sh -c '. "$0" && printf %s "$TOOLS_PATH"' "$ENV_FILE")" = "$TOOLS_PATH" ]
  unset MAIL_DOMAIN TOOLS_PATH TOOLS_SSH_KNOWN_HOSTS
  load_installed_answers
  [ "$TOOLS_PATH$TOOLS_SSH_KNOWN_HOSTS" = "$before" ]
  [ "$(env_lines)" = "$text" ]
  [ "$(unquoted "'of its owner'")" = 'of its owner' ]
}

@test "S2's own server stays from one setup to the next, until another answer is given" {
  printf 'STREAMS=s2\nS2_ACCOUNT_ENDPOINT=%s\nS2_BASIN_ENDPOINT=%s\n' "$S2_LITE_ENDPOINT" "$S2_LITE_ENDPOINT" >"$ENV_FILE"
  load_installed_answers
  set_defaults
  [ "$STREAMS/$S2_LITE" = s2/1 ]
  unset S2_ACCOUNT_ENDPOINT S2_BASIN_ENDPOINT S2_LITE
  STREAMS=local
  load_installed_answers
  set_defaults
  [ "$STREAMS/${S2_LITE:-}/$S2_ACCOUNT_ENDPOINT" = local// ]
}

@test "secrets come back as they were, and the same ones are not encrypted again" {
  sops=${SOPS_BIN:-$(command -v sops)}
  MAIL_DOMAIN=example.com RESEND_API_KEY='re_"quoted\back' RESEND_WEBHOOK_SECRET='whsec_a whsec_b'
  TOOL_SECRET_KEY=$'line one\nline two\n' TOOLS_REPO=
  do_secrets
  first=$(cat "$SECRETS_FILE")
  [[ $first != *re_* && $first != *whsec_* ]]
  [ "$(stored_secret RESEND_API_KEY)" = 're_"quoted\back' ]
  [ "$(stored_secret TOOL_SECRET_KEY)" = $'line one\nline two' ]
  [ "$(stat -c %a "$SECRETS_FILE" "$AGE_KEY" | paste -sd ' ')" = '600 400' ]
  [ -n "$ADMIN_TOKEN" ]
  do_secrets
  [ "$(cat "$SECRETS_FILE")" = "$first" ]
  # A new value for one; the others stay, also one that setup does not know.
  printf '"of the owner"' | SOPS_AGE_KEY_FILE=$AGE_KEY "$sops" set --value-stdin "$SECRETS_FILE" '["OTHER"]'
  RESEND_API_KEY=re_new
  do_secrets
  [ "$(stored_secret RESEND_API_KEY)" = re_new ]
  [ "$(stored_secret OTHER)" = 'of the owner' ]
  [ "$(stored_secret TOOL_SECRET_KEY)" = $'line one\nline two' ]
}

@test "secrets that cannot be decrypted are not written over" {
  sops=${SOPS_BIN:-$(command -v sops)}
  RESEND_API_KEY=re_one
  do_secrets
  before=$(cat "$SECRETS_FILE")
  rm -f "$AGE_KEY"
  age-keygen -o "$AGE_KEY" 2>/dev/null
  run do_secrets
  [ "$status" -eq 1 ]
  [[ $output == *'cannot be decrypted'* ]]
  [ "$(cat "$SECRETS_FILE")" = "$before" ]
}

# The first one is what the end of a rotation keeps: behind, it was the one that no webhook has.
@test "Resend's signing secret stands before the one that was given, once" {
  RESEND_WEBHOOK_SECRET=whsec_given
  add_webhook_secret whsec_made
  add_webhook_secret whsec_made
  [ "$RESEND_WEBHOOK_SECRET" = 'whsec_made whsec_given' ]
  RESEND_WEBHOOK_SECRET=
  add_webhook_secret whsec_made
  [ "$RESEND_WEBHOOK_SECRET" = whsec_made ]
}

@test "a Node that is there is taken where a proxy holds for all of it, and isolated-vm has a module" {
  for version in v24.5.0 v24.21.0 v26.0.0; do is_fit_version "$version"; done
  for version in v24.0.0 v24.4.1 v22.22.0 v25.1.0 ""; do
    run is_fit_version "$version"
    [ "$status" -eq 1 ]
  done
}

@test "Node from a mirror: the pinned one, or what it has; never one whose checksum is another" {
  node_arch=x64
  for version in 24.21.0 24.30.0; do
    rm -rf "$OPT" "$BATS_TEST_TMPDIR/mirror"
    mirror "$version"
    run fetch_node
    [ "$status" -eq 0 ]
    [ "$("${lines[-1]}" --version)" = "v$version" ]
  done
  rm -rf "$OPT"
  echo more >>"$archive"
  run fetch_node
  [ "$status" -eq 1 ]
  [[ $output == *checksum* ]]
  [ ! -e "$OPT/node/v24.30.0" ]
}
# As nodejs.org has them: by version, and the newest of a line.
mirror() {
  local folder=$BATS_TEST_TMPDIR/mirror/latest-v24.x name=node-v$1-linux-x64
  if [ "$1" = "$NODE_VERSION" ]; then folder=$BATS_TEST_TMPDIR/mirror/v$1; fi
  mkdir -p "$folder/$name/bin"
  printf '#!/bin/sh\necho v%s\n' "$1" >"$folder/$name/bin/node"
  chmod +x "$folder/$name/bin/node"
  archive=$folder/$name.tar.gz
  tar -C "$folder" -czf "$archive" "$name"
  (cd "$folder" && sha256sum "$name.tar.gz" >SHASUMS256.txt)
  NODE_MIRROR=file://$BATS_TEST_TMPDIR/mirror
}

@test "sops is fetched with its checksum" {
  sops_arch=amd64 SOPS_MIRROR=$BATS_TEST_TMPDIR/sops
  folder=$SOPS_MIRROR/v$SOPS_VERSION
  mkdir -p "$folder"
  printf '#!/bin/sh\necho sops %s\n' "$SOPS_VERSION" >"$folder/sops-v$SOPS_VERSION.linux.amd64"
  (cd "$folder" && sha256sum "sops-v$SOPS_VERSION.linux.amd64" >"sops-v$SOPS_VERSION.checksums.txt")
  fit_sops() { return 1; }
  install_file() { cat >"$BATS_TEST_TMPDIR/installed-sops"; }
  do_sops
  cmp "$folder/sops-v$SOPS_VERSION.linux.amd64" "$BATS_TEST_TMPDIR/installed-sops"
  echo more >>"$folder/sops-v$SOPS_VERSION.linux.amd64"
  run do_sops
  [ "$status" -eq 1 ]
  [[ $output == *checksum* ]]
}

@test "which commit: the newest version, the default branch, or what is asked for" {
  upstream=$BATS_TEST_TMPDIR/upstream
  git init -q -b trunk "$upstream"
  commit one && git -C "$upstream" tag v0.9.0
  commit two && git -C "$upstream" tag v0.10.0
  commit three
  git init -q --bare "$OPT/repository.git"
  mirror_git config remote.origin.url "$upstream"
  mirror_git fetch -q origin '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*'
  [ "$(subject)" = two ]
  [ "$(MILLRACE_REF=trunk subject)" = three ]
  [ "$(MILLRACE_REF=v0.9.0 subject)" = one ]
  [ "$(MILLRACE_REF=$(git -C "$upstream" rev-parse HEAD) subject)" = three ]
  mirror_git tag -d v0.9.0 v0.10.0 >/dev/null
  [ "$(subject)" = three ]
  MILLRACE_REF=nowhere run resolve_ref
  [ "$status" -ne 0 ]
}
commit() {
  git -C "$upstream" -c user.name=a -c user.email=a@example.com commit -q --allow-empty -m "$1"
}
subject() { mirror_git log -1 --format=%s "$(resolve_ref)"; }

@test "names that the internet does not know get certificates of Caddy's own" {
  for PUBLIC_URL in https://mail.example.com https://localhost https://mill.test https://mail.internal; do run ! has_public_name; done
  PUBLIC_URL=https://mail.millrace.dev
  has_public_name
  MILLRACE_TLS=internal
  run ! has_public_name
}

@test "the Caddyfile is ours by its first line, and has no placeholder left" {
  PUBLIC_URL=https://mail.example.com
  run render_caddyfile
  [ "${lines[0]}" = '# Managed by Millrace' ]
  [[ $output == *mail.example.com* && $output == *'tls internal'* && $output != *'{$'* ]]
}

@test "what Caddy's owner wrote is not touched, what the package brought is" {
  printf 'example.org {\n}\n' >"$ETC/Caddyfile"
  run is_untouched_by_owner "$ETC/Caddyfile"
  [ "$status" -ne 0 ]
  printf '# Managed by Millrace\n' >"$ETC/Caddyfile"
  is_untouched_by_owner "$ETC/Caddyfile"
}

@test "units of another answer are removed, and never one that is wanted" {
  UNIT_DIR=$BATS_TEST_TMPDIR/units STREAMS=s2 S2_LITE=1
  mkdir -p "$UNIT_DIR"
  systemctl() { echo "$*" >>"$BATS_TEST_TMPDIR/systemctl"; }
  # Many times over: a pipe that is closed early once made a wanted one look unwanted.
  for _ in 1 2 3 4 5; do
    do_units
    [ "$(ls "$UNIT_DIR")" = "$(own_units | sort)" ]
  done
  [[ $(cat "$BATS_TEST_TMPDIR/systemctl") != *disable* ]]
  STREAMS=local S2_LITE=
  do_units
  [ "$(ls "$UNIT_DIR")" = "$(own_units | sort)" ]
  grep -q 'disable --now millrace-runner.service' "$BATS_TEST_TMPDIR/systemctl"
}

@test "another port is that of the socket, too" {
  UNIT_DIR=$BATS_TEST_TMPDIR/units STREAMS=local PORT=8090
  mkdir -p "$UNIT_DIR"
  systemctl() { :; }
  do_units
  grep -qx 'ListenStream=127.0.0.1:8090' "$UNIT_DIR/millrace.socket.d/port.conf"
  PORT=8080
  do_units
  [ ! -e "$UNIT_DIR/millrace.socket.d" ]
}

@test "a systemd that knows backoff has it, an older one is not told of it" {
  UNIT_DIR=$BATS_TEST_TMPDIR/units STREAMS=local
  mkdir -p "$UNIT_DIR"
  systemctl() { echo 'systemd 252 (252.39-1~deb12u2)'; }
  do_units
  [ "$(ls "$UNIT_DIR")" = "$(own_units | sort)" ]
  systemctl() { echo 'systemd 257 (257.13-1~deb13u1)'; }
  do_units
  grep -q RestartMaxDelaySec "$UNIT_DIR"/{millrace,millrace-}.service.d/backoff.conf
}

@test "where somebody else serves the web, Caddy is not installed, and it is said what to do" {
  ss() { echo 'LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=7,fd=6))'; }
  PUBLIC_URL=https://mail.example.com
  detect_web
  [ "$web" = nginx ]
  run wanted_packages
  [[ $output != *caddy* ]]
  do_caddy
  grep -q mail.example.com "$ETC/Caddyfile"
  # To be imported into another one, after what stands there.
  run ! grep -x '{' "$ETC/Caddyfile"
  [ "$(grep -c '{$' "$ETC/Caddyfile")" = "$(grep -c '^[[:space:]]*}$' "$ETC/Caddyfile")" ]
  run web_summary mail.example.com
  [[ $output == *nginx*'was not touched'*127.0.0.1:8080* ]]
}

@test "nginx is told of where its configuration stands, another server in words" {
  for web in nginx apache2; do
    PUBLIC_URL=https://mail.example.com
    run web_summary mail.example.com
    [[ $output == *"$web serves the web"*'was not touched'* ]]
    if [ "$web" = nginx ]; then [[ $output == *'Behind nginx'* ]]; else [[ $output != *nginx* ]]; fi
  done
  grep -qx '## Behind nginx' "$repository/docs/setup.md"
}

@test "a port of ours that somebody else has is told of beforehand" {
  problems=()
  # The listener is this test's own shell; nobody else is on another address.
  ss() { [[ $* != *:8080* ]] || echo "LISTEN 0 511 $address:8080 0.0.0.0:* users:((\"tomcat\",pid=$$,fd=6))"; }
  for address in 127.0.0.1 0.0.0.0 '*'; do
    problems=()
    detect_ports
    [[ ${problems[*]} == *'Port 8080 is taken by'*"(process $$): set PORT to a free one."* ]]
  done
  problems=()
  address=192.0.2.7
  detect_ports
  address=0.0.0.0 PORT=8090
  detect_ports
  [ ${#problems[@]} -eq 0 ]
}

@test "systemd on our port, which holds our sockets, is no stranger; one on S2's port is" {
  problems=()
  ss() {
    case $* in
      *:8080*) echo 'LISTEN 0 511 127.0.0.1:8080 0.0.0.0:* users:(("systemd",pid=1,fd=35))' ;;
      *:4243*) echo "LISTEN 0 511 *:4243 *:* users:((\"other\",pid=$$,fd=35))" ;;
    esac
  }
  detect_ports
  [ ${#problems[@]} -eq 0 ]
  STREAMS=s2 S2_LITE=1
  detect_ports
  [ ${#problems[@]} -eq 1 ]
  [[ ${problems[0]} == *'Port 4243'*'let that program have another one'* ]]
}

@test "a systemd that is too old is told of beforehand" {
  SYSTEMD_RUNS=$BATS_TEST_TMPDIR
  for have in 249 252; do
    problems=()
    systemctl() { echo "systemd $have ($have.11-0ubuntu3)"; }
    detect_machine
    case $have in
      249) [[ ${problems[*]} == *'systemd 249 is too old, 252 is needed: Debian 12, Ubuntu 24.04'* ]] ;;
      *) [[ ${problems[*]} != *systemd* ]] ;;
    esac
  done
}

@test "S2's own server without its program or cargo is told of beforehand" {
  problems=()
  MAIL_DOMAIN=example.com PUBLIC_URL=https://mail.example.com RESEND_API_KEY=re_one MILLRACE_REPO=/srv/millrace STREAMS=local S2_LITE=1
  fit_s2() { return 1; }
  command() { [ "$2" != cargo ]; }
  check_answers
  [ ${#problems[@]} -eq 1 ]
  [[ ${problems[0]} == *'/usr/local/bin/s2'*cargo* ]]
}

@test "where a proxy leads out, nobody asks it for what is on this machine" {
  unset http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY NODE_USE_ENV_PROXY
  use_proxy
  [ -z "${no_proxy:-}${NODE_USE_ENV_PROXY:-}" ]
  # Nobody is there.
  export http_proxy=http://127.0.0.1:9
  NO_PROXY=internal.example.com
  use_proxy
  [ "$no_proxy" = localhost,127.0.0.1,::1,internal.example.com ]
  [ "$(env | grep -cE '^(no_proxy|NO_PROXY)=localhost|^NODE_USE_ENV_PROXY=1')" -eq 3 ]
  node -e 'require("http").createServer((_, answer) => answer.end("fine")).listen(0, "127.0.0.1", function () {
    console.log(this.address().port);
  })' >"$work/port" 3>&- &
  server=$!
  until PORT=$(grep . "$work/port"); do
    kill -0 "$server"
    sleep 0.1
  done
  UPSTREAM_HOST=127.0.0.1 is_healthy healthz || status=$?
  kill "$server"
  [ "${status:-0}" -eq 0 ]
}

@test "Caddy on these ports is no stranger" {
  ss() { echo 'LISTEN 0 511 *:443 *:* users:(("caddy",pid=7,fd=6))'; }
  detect_web
  [ "$web" = caddy ] || [ "$web" = foreign-caddyfile ]
}

@test "a program in somebody's home is not for the services" {
  run ! is_shared_program /root/.nvm/node
  is_shared_program /bin/sh
}

@test "it ends with what is left to a person: DNS, and a first mail" {
  MAIL_DOMAIN=agents.example.com,other.example.com
  PUBLIC_URL=https://mail.example.com
  printf 'MX    agents.example.com   inbound.resend.example   missing\n' >"$work/resend"
  own_address() { echo 192.0.2.7; }
  run show_summary
  [[ $output == *'A      mail.example.com   192.0.2.7'* ]]
  [[ $output == *'MX    agents.example.com   inbound.resend.example   missing'* ]]
  [[ $output == *'A first mail, to reverser@agents.example.com with the text abc'* ]]
}
