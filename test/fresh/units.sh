#!/usr/bin/env bash
# The units of deploy/systemd under a real systemd: a hand-made layout of a server (setup.sh makes the real one),
# all roles on a real `s2 lite`, with a stand-in for Resend. Each check is a function; the first that does not hold
# ends the run. Needs root, in FRESH_SYSTEM the tool that makes such machines, S2_BIN and SOPS_BIN.
#   test/fresh/units.sh [SUITE]
set -euo pipefail
cd "$(dirname "$0")/../.."

SUITE=${1:-bookworm}
FRESH_SYSTEM=${FRESH_SYSTEM:-$PWD/../shared/bin/fresh-system}
MAX_EXPOSURE=2.0
name=${UNITS_MACHINE:-units-$$}
work=$(mktemp -d)
release=/opt/millrace/releases/test
roles=(ingest runner outbox)
secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
# The Node that the launcher brought (`npm run check` does), where the machine's own is older.
node=$(readlink -e .cache/toolchain/node_modules/.bin/node || command -v node)

cleanup() {
  [ -n "${KEEP:-}" ] || "$FRESH_SYSTEM" down "$name" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

inside() { "$FRESH_SYSTEM" exec "$name" "$@"; }
sh_inside() { inside bash -c "$1"; }
put() { "$FRESH_SYSTEM" put "$name" "$@"; }
pass() { printf '  ok  %s (%d s)\n' "$1" "$SECONDS"; }

fail() {
  printf 'FAILED: %s\n' "$1" >&2
  inside journalctl -n 40 --no-pager -o short-monotonic -u 'millrace*' -u 's2-*' | cut -c1-300 >&2 || true
  exit 1
}

# until_true WHAT SECONDS COMMAND…: waits for a command inside to succeed.
until_true() {
  local what=$1 deadline=$((SECONDS + $2))
  shift 2
  until inside "$@" >/dev/null 2>&1; do
    if ((SECONDS > deadline)); then fail "$what"; fi
    sleep 0.1
  done
}

state() { inside systemctl show -P "$2" "$1"; }
is_ready() { until_true "$1 is not ready" 40 curl -sf -m 2 "http://127.0.0.1:$2/readyz"; }

make_machine() {
  "$FRESH_SYSTEM" up "$name" "$SUITE"
  inside mkdir -p "$release" /opt/millrace/bin /etc/millrace /usr/lib/systemd/system
  git ls-files -z | tar --null -T - -cf - | inside tar -xf - -C "$release"
  put node_modules "$release/node_modules"
  put "$node" /opt/millrace/bin/node
  put "$S2_BIN" /opt/millrace/bin/s2
  put "$SOPS_BIN" /usr/local/bin/sops
  inside ln -sfn "$release" /opt/millrace/current
  inside useradd --system --home-dir /var/lib/millrace --shell /usr/sbin/nologin millrace
  sh_inside "cp $release/deploy/systemd/* /etc/systemd/system/ && chown -R root: /opt/millrace"
  configure
}

# METRICS_PORT is there for the roles to stumble over: each keeps a port of its own.
configure() {
  inside tee /etc/millrace/millrace.env >/dev/null <<'END'
MAIL_DOMAIN=example.com
PUBLIC_URL=https://mail.example.com
RESEND_BASE_URL=http://127.0.0.1:5000
STREAMS=s2
S2_ACCOUNT_ENDPOINT=http://127.0.0.1:4243
S2_BASIN_ENDPOINT=http://127.0.0.1:4243
DATA_DIR=/var/lib/millrace
TOOLS_PATH=/opt/millrace/current/tools
METRICS_PORT=8089
END
  # The repository's own file is for a key that everybody knows: here that will do.
  sh_inside "cp $release/secrets.encrypted.yaml $release/.sops.yaml /etc/millrace/ && install -m 400 $release/deploy/public-test.age.key /etc/millrace/age.key"
  local pair
  for pair in RESEND_API_KEY=re_reading-hush RESEND_SENDING_KEY=re_sending-hush RESEND_WEBHOOK_SECRET=$secret \
    S2_ACCESS_TOKEN=ignored-hush ADMIN_TOKEN=admin-hush GITHUB_PAT=git-hush TOOL_SECRET_DEEPL=tool-hush; do
    inside env PATH=/opt/millrace/bin:/usr/local/bin:/usr/bin:/bin \
      /opt/millrace/bin/node /opt/millrace/current/src/main.ts secrets set "${pair%%=*}" <<<"${pair#*=}" >/dev/null
  done
}

check_unit_files() {
  local said score unit
  said=$(sh_inside 'systemd-analyze verify /etc/systemd/system/millrace*.{service,socket,target,timer} /etc/systemd/system/s2-lite.service 2>&1') || true
  [ -z "$said" ] || fail "systemd-analyze verify says: $said"
  for unit in deploy/systemd/*.service; do
    score=$(inside systemd-analyze security --offline=yes --no-pager "$release/$unit" 2>&1 | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
    awk -v score="${score:-10}" -v max="$MAX_EXPOSURE" 'BEGIN { exit !(score <= max) }' || fail "$unit has an exposure of ${score:-?}"
  done
  pass "unit files: verified without a word, each with an exposure of at most $MAX_EXPOSURE"
}

# A store that is away keeps every unit from being started, and is noticed by itself when it is back.
check_ready_only_when_ready() {
  inside systemctl enable -q millrace.target millrace-ingest.socket s2-lite.service millrace-{ingest,runner,outbox}.service
  # Not `mask --runtime`: a unit in /etc goes before it.
  sh_inside 'mkdir /run/systemd/system/s2-lite.service.d && printf "[Unit]\nConditionPathExists=/nowhere\n" >/run/systemd/system/s2-lite.service.d/away.conf && systemctl daemon-reload'
  inside systemctl start --no-block millrace.target
  until_true 'ingest does not say why it is not ready' 100 sh -c 'systemctl show -P StatusText millrace-ingest | grep -q "store cannot be reached"'
  [ "$(state millrace-ingest ActiveState)" = activating ] || fail 'ingest counts as started without a store'
  sh_inside 'rm -r /run/systemd/system/s2-lite.service.d && systemctl daemon-reload'
  inside systemctl start s2-lite
  until_true 'ingest does not come up with the store' 40 systemctl is-active -q millrace-ingest millrace-runner millrace-outbox
  is_ready ingest 8080
  is_ready runner 8081
  is_ready outbox 8082
  pass 'READY: only once the store is there'
}

# S2's own server asks for no token: other machines do not reach it, and on a kernel that cannot keep them away it is
# not started.
check_s2_fence() {
  local address
  address=$(inside hostname -I | awk '{ print $1 }')
  until_true 'S2 does not answer on loopback' 40 curl -sf -m 2 http://127.0.0.1:4243/health
  if inside curl -s -m 2 -o /dev/null "http://$address:4243/health"; then fail "S2 answers on $address"; fi
  doctor_says '"status": "ok",[^}]*cannot be reached at '"$address"
  # Units of their own, because the fence goes with a unit's control group, which may outlive its change or its end.
  inside systemctl stop s2-lite
  as_unit s2-unfenced '/^IPAddress/d'
  if inside systemctl start s2-unfenced 2>/dev/null; then fail 'S2 is started without its fence'; fi
  inside systemctl stop s2-unfenced
  until_true 'it does not say why S2 is not started' 20 sh -c 'journalctl -u s2-unfenced --no-pager -o cat | grep "is not started"'
  as_unit s2-open '/^IPAddress/d; /^ExecStartPre/d'
  inside systemctl start s2-open
  until_true "S2 does not answer on $address, though nothing keeps it from that" 40 curl -sf -m 2 "http://$address:4243/health"
  doctor_says "\"status\": \"fault\",[^}]*answers at $address, port 4243"
  inside systemctl stop s2-open
  inside systemctl start s2-lite
  is_ready ingest 8080
  pass 'S2: out of reach of other machines, and not started where it would be in reach'
}

# as_unit NAME EDIT: a copy of S2's unit, edited by sed.
as_unit() {
  sh_inside "sed '$2' /etc/systemd/system/s2-lite.service >/run/systemd/system/$1.service && systemctl daemon-reload"
}

# doctor_says PATTERN: of one finding. It works beside the units, with the variables and secrets of all of them.
doctor_says() {
  sh_inside "set -a && . /etc/millrace/millrace.env && PUBLIC_URL=http://127.0.0.1:8080 && cd $release &&
    PATH=/opt/millrace/bin:/usr/local/bin:/usr/bin:/bin node src/main.ts doctor --json --dns-server 127.0.0.1" >"$work/doctor" || true
  grep -qzE "\"part\": \"S2 fence\",[^}]*$1" "$work/doctor" || fail "doctor says of S2's fence: $(grep -A 4 'S2 fence' "$work/doctor")"
}

start_stand_in() {
  inside systemd-run -q --unit=resend -p "WorkingDirectory=$release" -- /opt/millrace/bin/node test/resend-stand-in/main.ts \
    '{"apiKey":"re_reading-hush","sendingKey":"re_sending-hush","port":5000}'
  until_true 'the stand-in does not start' 20 sh -c 'curl -s -m 2 -o /dev/null http://127.0.0.1:5000/'
}

# load SECONDS: webhooks while something happens; every one is taken, and answered once.
load() { inside sh -c "cd $release && exec /opt/millrace/bin/node test/fresh/webhook-load.ts http://127.0.0.1:5000 http://127.0.0.1:8080 $1"; }

check_restart_under_load() {
  load 9 >"$work/load" 2>&1 &
  local loading=$!
  sleep 1.5
  inside systemctl restart millrace-ingest
  inside systemctl restart millrace-runner millrace-outbox
  inside systemctl restart millrace-ingest
  wait "$loading" || fail "under load: $(tail -n 5 "$work/load")"
  [ "$(state millrace-ingest Result)" = success ] || fail 'ingest did not drain'
  pass "restarts under load: $(tail -n 1 "$work/load")"
}

check_kill() {
  local role before
  for role in "${roles[@]}"; do
    before=$(state "millrace-$role" NRestarts)
    inside kill -KILL "$(state "millrace-$role" MainPID)"
    until_true "$role did not come back after SIGKILL" 30 sh -c "[ \$(systemctl show -P NRestarts millrace-$role) -gt $before ] && systemctl is-active -q millrace-$role"
  done
  pass 'kill -9: each unit comes back'
}

# A stopped process gives no sign of life. The unit's own time is 30 s; here it is 3.
check_watchdog() {
  inside mkdir -p /run/systemd/system/millrace-outbox.service.d
  inside sh -c 'printf "[Service]\nWatchdogSec=3\n" >/run/systemd/system/millrace-outbox.service.d/watchdog.conf'
  inside systemctl daemon-reload
  inside systemctl restart millrace-outbox
  local pid before
  pid=$(state millrace-outbox MainPID)
  before=$(state millrace-outbox NRestarts)
  sleep 4
  [ "$(state millrace-outbox MainPID)" = "$pid" ] || fail 'a live outbox was killed by its watchdog'
  inside kill -STOP "$pid"
  until_true 'a stopped outbox was not started anew' 30 sh -c "[ \$(systemctl show -P NRestarts millrace-outbox) -gt $before ] && systemctl is-active -q millrace-outbox"
  inside sh -c 'rm -r /run/systemd/system/millrace-outbox.service.d && systemctl daemon-reload'
  # Read to its end: an early `grep -q` would end journalctl by a signal.
  inside journalctl -u millrace-outbox --no-pager | grep -i 'watchdog' >/dev/null || fail 'the journal does not speak of the watchdog'
  pass 'watchdog: a live process stays, a stopped one is started anew'
}

# What a role cannot see: the others' secrets, in files, environments and memory; and nobody sees any in passing.
check_secrets() {
  local role pid other
  for role in "${roles[@]}"; do
    pid=$(state "millrace-$role" MainPID)
    if inside cat "/proc/$pid/environ" | tr '\0' '\n' | grep -E 'hush|whsec'; then fail "$role has a secret in its environment"; fi
    inside nsenter -t "$pid" -m -- ls "/run/credentials/millrace-$role.service" >"$work/seen"
    diff "$work/seen" - <<<"$(expected_secrets "$role")" || fail "$role does not see just its own secrets"
    as_role "$pid" ls "/run/credentials/millrace-$role.service" | grep -q . || fail "this test does not see what $role sees"
    for other in "${roles[@]}"; do
      [ "$other" != "$role" ] || continue
      if as_role "$pid" ls "/run/credentials/millrace-$other.service" 2>/dev/null | grep .; then fail "$role reads the credentials of $other"; fi
      if as_role "$pid" cat "/proc/$(state "millrace-$other" MainPID)/environ" 2>/dev/null | grep -q .; then fail "$role reads the environment of $other"; fi
    done
  done
  if inside ps axeww -o args | grep -v resend-stand-in | grep -E '[h]ush|whsec_'; then fail 'ps shows a secret'; fi
  if inside journalctl --no-pager | grep -v resend-stand-in | grep -E 'hush|whsec_'; then fail 'the journal has a secret'; fi
  if inside grep -rlE 'hush|whsec_' /etc/systemd /etc/millrace/millrace.env /var/lib/millrace --exclude-dir=s2; then fail 'a secret is on the disk'; fi
  if inside grep -rlaE 'admin-hush|sending-hush|whsec_' /var/lib/millrace/s2; then fail 'a secret is on the streams'; fi
  pass 'secrets: each role has its own; none in ps, journal, units, environments, streams or on the disk'
}

# As the process of a role would: its namespaces and its user.
as_role() {
  local pid=$1
  shift
  inside nsenter -t "$pid" -m -U --preserve-credentials -S "$(inside id -u millrace)" -G "$(inside id -g millrace)" -- "$@"
}

expected_secrets() {
  case $1 in
    ingest) printf 'secret_%s\n' ADMIN_TOKEN RESEND_API_KEY RESEND_WEBHOOK_SECRET S2_ACCESS_TOKEN ;;
    runner) printf 'secret_%s\n' S2_ACCESS_TOKEN TOOL_SECRET_DEEPL ;;
    outbox) printf 'secret_%s\n' RESEND_SENDING_KEY S2_ACCESS_TOKEN ;;
  esac
}

# One role that dies again and again: the others work on, and health tells.
check_crash_loop() {
  inside mkdir -p /run/systemd/system/millrace-runner.service.d
  inside sh -c 'printf "[Service]\nExecStart=\nExecStart=/bin/sh -c \"sleep 0.2; exit 1\"\n" >/run/systemd/system/millrace-runner.service.d/loop.conf'
  inside systemctl daemon-reload
  inside systemctl restart --no-block millrace-runner
  until_true 'health does not tell of a runner that is gone' 30 sh -c 'curl -s -m 2 http://127.0.0.1:8080/healthz | grep -q "\"missingRoles\":\[\"runner\"\]"'
  [ "$(inside curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/healthz)" = 503 ] || fail 'health says that all is well'
  load 1 >"$work/load" 2>&1 &
  local loading=$!
  sleep 5
  inside systemctl is-active -q millrace-ingest millrace-outbox || fail 'a crash loop took the others down'
  inside sh -c 'rm -r /run/systemd/system/millrace-runner.service.d && systemctl daemon-reload && systemctl restart millrace-runner'
  wait "$loading" || fail "mail that came during a crash loop: $(tail -n 5 "$work/load")"
  until_true 'health does not get well' 30 curl -sf -m 2 http://127.0.0.1:8080/healthz
  pass 'crash loop: the others work, /healthz tells, what came meanwhile is answered'
}

# The unit leaves the runner what it confines its own children with. Landlock ("only its own files") is the
# kernel's to have: where it does, no unit takes it away.
check_sandbox() {
  local line
  line=$(inside journalctl -u millrace-runner --no-pager -o cat | grep '"runner.sandbox"' | tail -n 1)
  [[ $line == *'"missing":[]'* || $line == *'"missing":["only its own files"]'* ]] || fail "a fence of the sandbox is missing: $line"
  pass 'sandbox: its fences stand inside of the unit'
}

main() {
  make_machine
  pass 'a machine'
  check_unit_files
  check_ready_only_when_ready
  check_s2_fence
  check_sandbox
  start_stand_in
  check_restart_under_load
  check_kill
  check_watchdog
  check_crash_loop
  check_secrets
  echo "the units hold on $SUITE: $SECONDS s"
}

main "$@"
