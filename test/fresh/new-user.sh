#!/usr/bin/env bash
# A new user's first minute: a fresh Debian with its own Node 20, npm 9 and Git and nothing else, an
# unprivileged user, a clone, `npm start`, and the first reply on the page. Prints the seconds from clone to
# reply, which no line here judges. Needs root, and in FRESH_SYSTEM the tool that makes such machines.
#   test/fresh/new-user.sh [SUITE]
set -euo pipefail
cd "$(dirname "$0")/../.."

SUITE=${1:-trixie}
FRESH_SYSTEM=${FRESH_SYSTEM:-$PWD/../shared/bin/fresh-system}
LINK_DEADLINE_SECONDS=300
STOP_DEADLINE_SECONDS=20
name=new-user-$$
work=$(mktemp -d)
# The browser is driven by this checkout, on the Node that its launcher found or fetched.
node src/launch.mjs --tool tsc --version >/dev/null
node=.cache/toolchain/node_modules/.bin/node
[ -x "$node" ] || node=node

cleanup() {
  "$FRESH_SYSTEM" down "$name" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

as_root() { "$FRESH_SYSTEM" exec "$name" "$@"; }
# The machine passes on where its packages come from; everything else is a fresh login's.
as_owner() { as_root runuser -u owner -- env HOME=/home/owner bash -c "cd && $1"; }

fail() {
  echo "FAILED: $1" >&2
  as_root tail -n 60 /home/owner/log >&2 || true
  exit 1
}

prepare() {
  "$FRESH_SYSTEM" up "$name" "$SUITE"
  if ! { as_root apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm git; } >"$work/apt" 2>&1; then
    tail -n 40 "$work/apt"
    return 1
  fi
  as_root useradd --create-home --shell /bin/bash owner
  git clone -q --bare . "$work/millrace.git"
  "$FRESH_SYSTEM" put "$name" "$work/millrace.git" /srv/millrace.git
  as_root chown -R owner: /srv/millrace.git
  echo "on $SUITE: node $(as_root node --version), npm $(as_root npm --version 2>/dev/null)"
}

# Starts it as a person does and waits for the link that it prints; sets `link` and `started`.
start() {
  started=$SECONDS
  as_owner 'git clone -q /srv/millrace.git millrace'
  as_owner 'cd millrace; npm start >../log 2>&1 & echo $! >../pid; wait; echo ended >>../log' &
  until link=$(as_root grep -oE 'http://127\.0\.0\.1:[0-9]+/\S*' /home/owner/log 2>/dev/null); do
    if as_root grep -qx ended /home/owner/log 2>/dev/null; then fail 'npm start ended'; fi
    if ((SECONDS - started > LINK_DEADLINE_SECONDS)); then fail "no link after $LINK_DEADLINE_SECONDS s"; fi
    sleep 0.2
  done
  echo "$((SECONDS - started)) s from clone to link"
}

# A browser of this machine, in the network of the fresh one, sends the first email and sees the reply.
check_page() {
  local screenshot=${SCREENSHOT:-$work/first-reply.png}
  ip netns exec "fresh-$name" "$node" test/fresh/first-reply.ts "$link" "$screenshot" || fail 'the page showed no reply'
  echo "$((SECONDS - started)) s from clone to the reply on the screen"
}

# A mail from a file comes back, too.
check_send() {
  local mail='From: me@example.com\nTo: reverser@millrace.localhost\nSubject: Hello\nMessage-ID: <one@example.com>\n\nabc'
  as_owner "printf '$mail' >mail.eml"
  as_owner 'cd millrace && node src/launch.mjs send ../mail.eml >../reply 2>&1' || fail "send: $(as_root cat /home/owner/reply)"
  as_root grep -q cba /home/owner/reply || fail "no reply in: $(as_root cat /home/owner/reply)"
  echo 'a mail from a file was answered'
}

# A part of the tests runs there too, by the README's other command.
check_tests() {
  as_owner 'cd millrace && npm test -- test/platform >../test-log 2>&1' || fail "tests: $(as_root tail -n 60 /home/owner/test-log)"
  echo 'tests run'
}

# The signal goes to npm alone, as from a process manager: it must reach the daemon behind it.
stop() {
  local started=$SECONDS
  # shellcheck disable=SC2016 # for the shell inside
  as_root bash -c 'kill -TERM "$(cat /home/owner/pid)"'
  while as_root pgrep -u owner -f src/main.ts >/dev/null; do
    if ((SECONDS - started > STOP_DEADLINE_SECONDS)); then fail 'the daemon outlives its signal'; fi
    sleep 0.2
  done
  echo 'it stops when it is told'
}

prepare
start
check_page
check_send
check_tests
stop
