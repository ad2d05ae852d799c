#!/usr/bin/env bash
# setup.sh from nothing to nothing, on a fresh Debian, from a pipe, against the stand-in for Resend and a real
# `s2 lite`: mail through Caddy's HTTPS, a second run that changes nothing, a reboot, and the uninstaller. Between
# them, in two parts that take about the same time, so that each suite runs one:
#   life     no secret lies about, upgrade and rollback under load, a web that is somebody else's, data that is kept
#   trouble  broken off in each of its steps, units killed and stopped, an upgrade broken off in each of its steps and
#            rebooted upon, a push to the tools
# What it needs from the network is apt and npm; Node's archive is served inside, sops and s2 are put on its PATH.
#   test/fresh/setup.sh [SUITE [PART]]      needs root, FRESH_SYSTEM, SOPS_BIN and S2_BIN
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/fresh/setup-upgrade.sh
. test/fresh/setup-own-web.sh

SUITE=${1:-bookworm}
PART=${2:-$(if [ "$SUITE" = bookworm ]; then echo life; else echo trouble; fi)}
FRESH_SYSTEM=${FRESH_SYSTEM:-$PWD/../shared/bin/fresh-system}
SOPS_BIN=${SOPS_BIN:-$(command -v sops)}
S2_BIN=${S2_BIN:-$(command -v s2)}
DEADLINE_SECONDS=300
STAND_IN=http://127.0.0.1:5055
MIRROR=http://127.0.0.1:5056
PUBLIC_URL=https://mail.agents.example.com
# Strings that stand nowhere else, to be looked for afterwards.
KEY=re_4fPzKeyThatReads
PAT=ghp_9tQwTokenOfTheTools
PUSH_SECRET=tt53SecretOfThePush
TOOL_SECRET=zz81SecretOfATool
name=setup-$SUITE-$$
work=$(mktemp -d)
root=${FRESH_SYSTEM_DIR:-/var/cache/fresh-system}/machines/$name/root
pids=()
node src/launch.mjs --tool tsc --version >/dev/null
node=$PWD/.cache/toolchain/node_modules/.bin/node
[ -x "$node" ] || node=node

cleanup() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  "$FRESH_SYSTEM" down "$name" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

inside() { "$FRESH_SYSTEM" exec "$name" "$@"; }
beside() { ip netns exec "fresh-$name" "$@"; }
# For the background: the process is the program itself, so that a signal reaches it.
exec_beside() { exec ip netns exec "fresh-$name" "$@"; }
passed() { printf '%s: %s (%d s)\n' "$SUITE" "$1" "$SECONDS"; }

fail() {
  printf 'FAILED on %s: %s\n' "$SUITE" "$1" >&2
  tail -n 40 "$work/setup" >&2 || true
  inside journalctl -u 'millrace*' -u caddy -n 40 --no-pager -o cat >&2 || true
  exit 1
}

# The one line of the README; its answers come from a file, so that they are in no argument of ours either.
set_up() {
  # shellcheck disable=SC2016 # for the shell inside
  inside env MILLRACE_UNATTENDED=1 S2_LITE=1 "$@" sh -c 'set -a; . /root/answers; set +a; cat /root/setup.sh | bash' >"$work/setup" 2>&1
}

wait_for() { # wait_for WHAT COMMAND…
  local started=$SECONDS what=$1
  shift
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS - started > DEADLINE_SECONDS)); then fail "$what: not within $DEADLINE_SECONDS s"; fi
    sleep 0.2
  done
}

mail() { # mail TEXT EXPECTED-REPLY [COPIES]
  RESEND_API_KEY=$KEY beside "$node" test/fresh/mail-through-caddy.ts $STAND_IN $PUBLIC_URL \
    "$root/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt" "$@" || fail "mail $1"
}

# Every path of the machine but those that it changes by itself.
list_paths() {
  inside find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root -o -path /srv \
    -o -path /var/log/journal -o -path '/var/cache/[^m]*' -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd \
    -o -path /var/backups -o -path /var/log/dpkg.log -o -path /var/log/apt -o -path /var/tmp \) -prune -o -print | sort
}

# Content, times and modes; of services, when they were started.
list_state() {
  inside bash -c "find /etc $* -xdev -printf '%p %m %u %T@ ' -type f -exec sha256sum {} \; -o -xdev -printf '%p %m %l\n' | sort
    systemctl show -p Id,ActiveEnterTimestampMonotonic 'millrace*' s2-lite caddy"
}

prepare() {
  "$FRESH_SYSTEM" up "$name" "$SUITE"
  # Without tags: a version would be taken in place of what is here.
  git clone -q --bare --no-tags . "$work/millrace.git"
  git -C "$work/millrace.git" update-ref refs/heads/main "$(git rev-parse HEAD)"
  git -C "$work/millrace.git" symbolic-ref HEAD refs/heads/main
  "$FRESH_SYSTEM" put "$name" "$work/millrace.git" /srv/millrace.git
  "$FRESH_SYSTEM" put "$name" setup.sh /root/setup.sh
  cat >"$root/root/answers" <<ANSWERS
MAIL_DOMAIN=agents.example.com
PUBLIC_URL=$PUBLIC_URL
RESEND_API_KEY=$KEY
RESEND_BASE_URL=$STAND_IN
TOOL_SECRET_DEEPL=$TOOL_SECRET
GITHUB_PAT=$PAT
GIT_WEBHOOK_SECRET=$PUSH_SECRET
NODE_MIRROR=$MIRROR
MILLRACE_REPO=/srv/millrace.git
ANSWERS
  "$FRESH_SYSTEM" put "$name" "$SOPS_BIN" /usr/local/bin/sops
  "$FRESH_SYSTEM" put "$name" "$S2_BIN" /usr/local/bin/s2
  exec_beside python3 -m http.server 5056 --bind 127.0.0.1 --directory "$(test/fresh/node-mirror.sh)" >/dev/null 2>&1 &
  pids+=($!)
  exec_beside "$node" test/resend-stand-in/main.ts "{\"port\":5055,\"apiKey\":\"$KEY\",\"domains\":[{\"name\":\"agents.example.com\",\"recordStatus\":\"pending\"}]}" >"$work/stand-in" 2>&1 &
  pids+=($!)
  wait_for 'the stand-in' grep -q http "$work/stand-in"
  passed 'a fresh machine'
}

check_refusals() {
  list_paths >"$work/before"
  if inside env MILLRACE_UNATTENDED=1 bash /root/setup.sh >"$work/setup" 2>&1; then fail 'it starts without answers'; fi
  for missing in MAIL_DOMAIN PUBLIC_URL RESEND_API_KEY MILLRACE_REPO; do
    grep -q "$missing is not set" "$work/setup" || fail "$missing is not named as missing"
  done
  if inside sh -c 'setsid bash /root/setup.sh </dev/null' >"$work/setup" 2>&1; then fail 'it starts without a terminal'; fi
  grep -q 'no terminal' "$work/setup" || fail 'it does not say that there is no terminal'
  inside bash /root/setup.sh --dry-run >"$work/plan" || fail 'dry run'
  inside useradd --system millrace
  if set_up; then fail 'it takes a user millrace of somebody else'; fi
  grep -q 'user millrace' "$work/setup" || fail 'it does not say whose user it is'
  inside userdel millrace
  list_paths | diff "$work/before" - || fail 'a refusal changed the machine'
  passed 'refusals change nothing'
}

# Killed as soon as a step begins. What it started is killed with it in every other step, after a moment; in the
# others it goes on alone, as after a lost connection, and the next run has to wait for it.
check_interruptions() {
  local step number=0 steps
  mapfile -t steps < <(cut -f 1 "$work/plan" | grep -v problem)
  for step in "${steps[@]}"; do
    number=$((number + 1))
    : >"$work/setup"
    set_up &
    local run=$!
    wait_for "the step $step" has_begun_or_ended "$step" "$run"
    grep -q "^==> $step:" "$work/setup" || fail "it ended before the step $step"
    if ((number % 2 == 0)); then sleep 0.7; fi
    inside pkill -KILL -f '^bash$' || true
    # shellcheck disable=SC2016 # for the shell inside
    if ((number % 2 == 0)); then
      inside bash -c 'for name in "npm ci" apt-get dpkg git tar node; do pkill -KILL -x "$name"; done' || true
    fi
    wait "$run" 2>/dev/null || true
  done
  passed "broken off in $number steps"
}

has_begun_or_ended() { grep -q "^==> $1:" "$work/setup" || ! kill -0 "$2"; }

check_installation() {
  # A look at the process list all the while: a key in an argument would stand there.
  inside bash -c 'while :; do ps axww -o args; sleep 0.05; done' >"$work/ps" 2>/dev/null &
  local watcher=$!
  set_up || fail 'setup'
  kill "$watcher" 2>/dev/null || true
  inside pkill -f 'ps axww' || true
  passed 'set up, from a pipe'
  mail abc cba
  passed 'a signed webhook through HTTPS is answered'
}

check_secrets() {
  local secret
  for secret in "$KEY" "$PAT" "$TOOL_SECRET" "$PUSH_SECRET" "$(inside env SOPS_AGE_KEY_FILE=/etc/millrace/age.key sops --decrypt --extract '["ADMIN_TOKEN"]' /etc/millrace/secrets.encrypted.yaml)"; do
    if grep -qF -- "$secret" "$work/ps"; then fail 'a secret stood in the process list'; fi
    if grep -qF -- "$secret" "$work/setup"; then fail 'a secret was printed'; fi
    if inside grep -rlF --exclude-dir=releases --exclude-dir=node --exclude=answers -- "$secret" /etc /opt/millrace /var/lib /var/log /root /home /tmp; then fail 'a secret lies on the disk'; fi
    if inside journalctl --no-pager | grep -F -- "$secret"; then fail 'a secret is in the journal'; fi
    if inside bash -c "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'" | grep -F -- "$secret" | grep -v '^PWD'; then fail 'a secret is in an environment'; fi
  done
  passed 'no secret in process list, environment, logs, files'
}

check_second_run() {
  # As `systemctl edit` makes it: the owner's own, and nothing to stumble over.
  local own=/etc/systemd/system/millrace-runner.service.d
  inside mkdir "$own"
  printf '[Service]\nNice=5\n' >"$root$own/override.conf"
  list_state /usr/local >"$work/state"
  set_up || fail 'the second run'
  list_state /usr/local | diff "$work/state" - || fail 'the second run changed something'
  # And one that is given no answers, under a trace.
  inside env MILLRACE_UNATTENDED=1 NODE_MIRROR=$MIRROR bash -x /root/setup.sh >"$work/setup" 2>&1 || fail 'a second run without answers'
  if grep -qF -- "$KEY" "$work/setup"; then fail 'a trace shows a secret'; fi
  list_state /usr/local | diff "$work/state" - || fail 'a second run without answers changed something'
  inside rm -r "$own"
  passed 'a second run changes nothing'
}

check_kills() {
  local unit units pid
  units=$(inside systemctl list-units --plain --no-legend --state=running 'millrace*.service' s2-lite.service | awk '{ print $1 }')
  [ "$(wc -l <<<"$units")" -ge 4 ] || fail "these run: $units"
  for unit in $units; do
    pid=$(inside systemctl show -p MainPID --value "$unit")
    inside kill -KILL "$pid"
    # shellcheck disable=SC2016 # for the shell inside
    wait_for "$unit to come back" inside bash -c 'systemctl is-active -q "$1" && [ "$(systemctl show -p MainPID --value "$1")" != "$2" ]' - "$unit" "$pid"
  done
  # systemd 252 has no backoff, and complains of the word.
  if [ "$SUITE" != bookworm ]; then
    [ "$(inside systemctl show -P RestartMaxDelayUSec millrace-runner)" = 15s ] || fail 'the runner has no backoff'
  fi
  if inside journalctl --no-pager -o cat | grep -F 'Unknown key'; then fail 'systemd does not know all that the units say'; fi
  mail defg gfed 2
  passed "killed and back: $(paste -sd ' ' <<<"$units")"
}

# A role that ends at every start, and one that somebody has stopped: doctor names both, and what to do.
check_doctor() {
  inside mkdir -p /run/systemd/system/millrace-runner.service.d
  inside sh -c 'printf "[Service]\nExecStart=\nExecStart=/bin/false\n" >/run/systemd/system/millrace-runner.service.d/loop.conf; systemctl daemon-reload; systemctl restart --no-block millrace-runner; systemctl stop millrace-outbox'
  wait_for 'doctor to name the units' doctor_names millrace-runner.service millrace-outbox.service
  inside sh -c 'rm -r /run/systemd/system/millrace-runner.service.d; systemctl daemon-reload; systemctl restart millrace-runner millrace-outbox'
  wait_for 'doctor to find units and daemon at work' doctor_finds_all_at_work
  passed 'doctor names units that are down'
}

doctor_names() {
  local unit
  inside millrace doctor --json >"$work/doctor" || true
  for unit in "$@"; do grep -qF "$unit does not run" "$work/doctor" || return 1; done
}

doctor_finds_all_at_work() {
  inside millrace doctor >"$work/doctor" || true
  grep -qE 'ok +units +[0-9]+ at work' "$work/doctor" && grep -qE 'ok +daemon +healthy' "$work/doctor"
}

check_reboot() {
  "$FRESH_SYSTEM" reboot "$name"
  mail hij jih
  passed 'answers after a reboot'
}

# A revision whose only tool answers with this word first; and the host's webhook that tells of the push.
push_tools() {
  [ -d "$work/tools/.git" ] || git init -q -b main "$work/tools"
  mkdir -p "$work/tools/tools"
  printf 'import type { Email } from "millrace";\nexport const reverser = (email: Email) => "%s " + email.text;\n' "$1" >"$work/tools/tools/index.ts"
  git -C "$work/tools" add -A
  git -C "$work/tools" -c user.name=author -c user.email=author@example.com commit -qm "$1"
  git -C "$work/tools" push -q "$root/srv/tools.git" main
}

announce_push() {
  local signature
  signature=$(printf '{}' | openssl dgst -sha256 -hmac "$PUSH_SECRET" -r | cut -d ' ' -f 1)
  beside curl -sf --cacert "$root/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt" --resolve mail.agents.example.com:443:127.0.0.1 \
    -H "x-hub-signature-256: sha256=$signature" -H 'content-type: application/json' -d '{}' "$PUBLIC_URL/webhooks/git" >/dev/null
}

tool_is_live() { (mail x "$1") >/dev/null 2>&1; }

# A bare repository of root's, and no Git host: what its webhook would say is said here.
check_tools() {
  git init -q --bare -b main "$root/srv/tools.git"
  push_tools first
  if set_up TOOLS_REPO=/root/tools.git; then fail 'it takes tools from where no service can look'; fi
  grep -q 'TOOLS_REPO is not right' "$work/setup" || fail 'it does not say what is wrong with TOOLS_REPO'
  set_up TOOLS_REPO=/srv/tools.git || fail 'setup with a tools repository'
  wait_for 'the first tools' tool_is_live first
  push_tools second
  wait_for 'the webhook of the push' announce_push
  wait_for 'the pushed tools' tool_is_live second
  passed 'a push to the tools is live'
}

check_uninstall() {
  inside /opt/millrace/current/deploy/uninstall.sh --export /root/export >"$work/setup" 2>&1 || fail 'uninstall'
  inside bash -c 'tar -tzf /root/export/*.tar.gz' | grep var/lib/millrace >/dev/null || fail 'nothing was exported'
  if inside getent passwd millrace; then fail 'the user is left'; fi
  list_paths | diff "$work/before" - || fail 'the uninstaller left something, or took too much'
  passed 'uninstalled: nothing is left'
}

case $PART in life | trouble) ;; *) fail "there is no part $PART" ;; esac
prepare
check_refusals
[ "$PART" = life ] || check_interruptions
check_installation
[ "$PART" = trouble ] || check_secrets
check_second_run
if [ "$PART" = life ]; then
  check_upgrade
  check_reboot
else
  check_kills
  check_doctor
  check_broken_upgrade
  check_tools
fi
check_uninstall
if [ "$PART" = life ]; then
  check_foreign_caddyfile
  check_kept_data
  check_foreign_server
fi
