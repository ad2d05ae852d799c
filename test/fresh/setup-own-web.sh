# shellcheck shell=bash
# A part of setup.sh beside: a machine whose web is somebody else's, first a Caddyfile and then another server; the
# records in a local file (STREAMS=local); and an uninstaller that leaves just the data, which a new setup takes up.
# shellcheck disable=SC2154 # variables of setup.sh

# Caddy keeps certificates to itself there.
list_own_paths() { list_paths | grep -v '^/var/lib/caddy'; }

start_own_caddy() {
  inside apt-get update -qq >"$work/setup" 2>&1 || fail 'apt-get update'
  inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends caddy age git >"$work/setup" 2>&1 || fail 'apt-get'
  printf ':8000 {\n\trespond own\n}\n' >"$work/Caddyfile"
  "$FRESH_SYSTEM" put "$name" "$work/Caddyfile" /etc/caddy/Caddyfile
  inside systemctl restart caddy
}

check_foreign_caddyfile() {
  start_own_caddy
  list_own_paths >"$work/before-local"
  set_up S2_LITE= STREAMS=local || fail 'setup beside a Caddyfile'
  grep -qF 'import /etc/millrace/Caddyfile' "$work/setup" || fail 'it does not say what to import'
  inside cat /etc/caddy/Caddyfile | cmp - "$work/Caddyfile" || fail 'it changed a Caddyfile that is not its own'
  # As it said, and where one writes first: at the end.
  echo 'import /etc/millrace/Caddyfile' >>"$work/Caddyfile"
  "$FRESH_SYSTEM" put "$name" "$work/Caddyfile" /etc/caddy/Caddyfile
  inside systemctl reload caddy || fail 'what it said to import does not go with that Caddyfile'
  [ "$(inside curl -s http://127.0.0.1:8000/)" = own ] || fail "the owner's own site is gone"
  first_email=$(mail klm mlk | awk '{ print $NF }')
  passed 'STREAMS=local beside a Caddyfile of somebody else: told what to import, and answers'
}

check_kept_data() {
  inside /opt/millrace/current/deploy/uninstall.sh --keep-data >"$work/setup" 2>&1 || fail 'uninstall --keep-data'
  list_own_paths >"$work/after-local"
  diff "$work/before-local" "$work/after-local" >"$work/left" && fail 'nothing was kept'
  if grep '^[<>]' "$work/left" | grep -vE '^> /(etc/millrace|var/lib/millrace|var/log/millrace-setup.log)(/|$)'; then fail 'more or less than the data was kept'; fi
  grep -qF '> /var/lib/millrace/streams.db' "$work/left" || fail 'the records were not kept'
  passed 'uninstalled: just the data is left'
}

# Without answers: they lie with the data.
check_foreign_server() {
  inside systemctl stop caddy
  inside systemd-run -q --unit=stranger perl -MIO::Socket::INET -e '@listener = IO::Socket::INET->new(LocalPort => 443, Listen => 5); sleep'
  wait_for 'the other web server' inside sh -c 'ss -ltnH "( sport = :443 )" | grep -q .'
  inside env MILLRACE_UNATTENDED=1 NODE_MIRROR="$MIRROR" MILLRACE_REPO=/srv/millrace.git bash /root/setup.sh >"$work/setup" 2>&1 || fail 'a new setup on the data'
  grep -q 'perl serves the web on this machine and was not touched' "$work/setup" || fail 'it does not say whose the web is'
  grep -qF 'pass these on to http://127.0.0.1:8080' "$work/setup" || fail 'it does not say what to pass on'
  inside systemctl is-active -q stranger || fail 'the other web server was stopped'
  if inside systemctl is-active -q caddy; then fail 'Caddy was started beside another web server'; fi
  inside systemctl stop stranger
  inside systemctl start caddy
  mail nop pon
  inside millrace trace "$first_email" | grep -q . || fail 'it does not know the mail from before'
  passed 'another web server was left alone; a new setup answers from the data that was kept'
  inside /opt/millrace/current/deploy/uninstall.sh --purge >"$work/setup" 2>&1 || fail 'uninstall --purge'
  list_own_paths | diff "$work/before-local" - || fail 'the uninstaller left something, or took too much'
  passed 'uninstalled: nothing is left'
}
