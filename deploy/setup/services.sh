# shellcheck shell=bash
# Steps of setup.sh: units, Caddy, and the start. Files come from the release as they are; a service is restarted
# when something that it reads has changed, and not otherwise.
# shellcheck disable=SC2154 # variables of setup.sh

UNIT_DIR=/etc/systemd/system
HEALTH_DEADLINE_SECONDS=120
READY_DEADLINE_SECONDS=60
UPSTREAM_HOST=127.0.0.1

# The units that make up this installation, of those that the release has; the target brings them up together.
own_units() {
  local unit units=(millrace.target millrace-secrets.service)
  if [ "$STREAMS" = s2 ]; then
    units+=(millrace-ingest.socket millrace-ingest.service millrace-runner.service millrace-outbox.service)
    if is_set TOOLS_REPO; then units+=(millrace-sync.service millrace-sync.timer); fi
  else
    units+=(millrace.socket millrace.service)
  fi
  if [ "${S2_LITE:-}" = 1 ]; then units+=(s2-lite.service); fi
  for unit in "${units[@]}"; do
    if [ -e "$release/deploy/systemd/$unit" ]; then echo "$unit"; fi
  done
}

# Another port than that of the socket's unit.
set_port() {
  local unit
  for unit in $(own_units | grep '\.socket$' || true); do
    if [ "${PORT:-8080}" = 8080 ]; then
      if is_ours path "$UNIT_DIR/$unit.d" && [ -e "$UNIT_DIR/$unit.d" ]; then rm -rf "$UNIT_DIR/$unit.d" && mark_changed; fi
    else
      record path "$UNIT_DIR/$unit.d"
      printf '[Socket]\nListenStream=\nListenStream=%s:%s\n' "$UPSTREAM_HOST" "$PORT" | install_file "$UNIT_DIR/$unit.d/port.conf"
    fi
  done
}

# What crashes at every start is tried less and less often. systemd knows how from 254 on, and complains of it before;
# it goes on counting until a person or an upgrade restarts the unit, so the longest delay is short.
set_backoff() {
  local folder version
  version=$(systemctl --version | grep -oE '[0-9]+' | head -n 1 || true)
  if [ "${version:-0}" -lt 254 ]; then return; fi
  for folder in "$UNIT_DIR/millrace.service.d" "$UNIT_DIR/millrace-.service.d"; do
    printf '[Service]\nRestartSteps=5\nRestartMaxDelaySec=15\n' | install_file "$folder/backoff.conf"
  done
}

# Those of another answer (STREAMS, TOOLS_REPO, S2_LITE) to an earlier setup.
remove_former_units() {
  local unit wanted
  wanted=$(own_units)
  while read -r unit; do
    if [ -e "$UNIT_DIR/$unit" ] && [[ $'\n'$wanted$'\n' != *$'\n'"$unit"$'\n'* ]]; then
      mark_changed
      quietly "systemctl disable --now $unit" systemctl disable --now "$unit"
      rm -f "$UNIT_DIR/$unit"
    fi
  done < <(awk '$1 == "unit" { print $2 }' "$INSTALLED")
}

do_units() {
  local unit
  for unit in $(own_units); do
    record unit "$unit"
    install_file "$UNIT_DIR/$unit" <"$release/deploy/systemd/$unit"
  done
  set_port
  set_backoff
  remove_former_units
  record path "$UNIT_DIR/millrace.target.wants"
  if has_changed; then quietly 'systemctl daemon-reload' systemctl daemon-reload; fi
}

# --- Caddy ---

# A name that no public authority gives a certificate for (RFC 2606, RFC 6761): Caddy signs for it itself.
has_public_name() {
  [ "${MILLRACE_TLS:-}" != internal ] || return 1
  case $(public_host) in
    localhost | *.localhost | *.test | *.example | *.invalid | *.internal | *.local | *.home.arpa) return 1 ;;
    example.com | *.example.com | example.net | *.example.net | example.org | *.example.org) return 1 ;;
  esac
}

render_caddyfile() {
  local text tls='' site=$PUBLIC_URL
  has_public_name || tls='tls internal'
  text=$(<"$release/Caddyfile")
  text=$(sed -E "s|\\{\\\$MILLRACE_SITE(:[^}]*)?\\}|$site|g; s|\\{\\\$MILLRACE_UPSTREAM(:[^}]*)?\\}|$UPSTREAM_HOST:${PORT:-8080}|g; s|\\{\\\$MILLRACE_TLS(:[^}]*)?\\}|$tls|g" <<<"$text")
  if [ "${text%%$'\n'*}" != '# Managed by Millrace' ]; then printf '# Managed by Millrace\n'; fi
  printf '%s\n' "$text"
}

without_global_options() { awk '/^\{$/ && !found { found = skip = 1 } !skip { print } /^\}$/ { skip = 0 }'; }

do_caddy() {
  local target=/etc/caddy/Caddyfile
  [ "$web" = caddy ] || target=$ETC/Caddyfile
  # What the package put there comes back with the uninstaller.
  if [ "$target" = /etc/caddy/Caddyfile ] && ! is_ours path "$target" && [ -e "$target" ]; then
    if [ "$(head -n 1 "$target")" != '# Managed by Millrace' ]; then cp -p "$target" "$ETC/Caddyfile.packaged"; fi
    record path "$ETC/Caddyfile.packaged"
  fi
  local text
  text=$(render_caddyfile)
  # Imported, it must not bring global options: they stand first in a Caddyfile, and only once.
  if [ "$web" != caddy ]; then text=$(without_global_options <<<"$text"); fi
  install_file "$target" <<<"$text"
  if [ "$web" != caddy ]; then return; fi
  # It makes an authority of its own on the way: not in root's home.
  quietly 'caddy validate' env HOME="$work" XDG_DATA_HOME="$work" caddy validate --adapter caddyfile --config "$target"
  if has_changed || ! systemctl is-active -q caddy; then
    quietly 'systemctl enable caddy' systemctl enable caddy
    quietly 'systemctl reload-or-restart caddy' systemctl reload-or-restart caddy
  fi
}

# What the owner has to do where the web is not ours.
web_summary() {
  case $web in
    caddy) has_public_name || say "     $1 is no name of the internet: Caddy signs its certificate itself." ;;
    foreign-caddyfile)
      say '     /etc/caddy/Caddyfile was not touched. Put this line into it, then systemctl reload caddy:'
      say "       import $ETC/Caddyfile"
      ;;
    *)
      say "     $web serves the web on this machine and was not touched. Let it pass these on to http://$UPSTREAM_HOST:${PORT:-8080},"
      say "     with the host's name: https://$1/webhooks/* and /healthz, with bodies of up to 2 MB, and, for you, the rest."
      if [ "$web" = nginx ]; then say '     As nginx wants it: docs/setup.md, "Behind nginx".'; fi
      ;;
  esac
}

# --- The start ---

do_start() {
  local unit services restarted previous
  mapfile -t services < <(own_units)
  for unit in "${services[@]}"; do
    if grep -q '^\[Install\]' "$UNIT_DIR/$unit" && ! systemctl is-enabled -q "$unit"; then
      quietly "systemctl enable $unit" systemctl enable "$unit"
    fi
  done
  previous=$(readlink -f "$OPT/current" || true)
  # Also where an upgrade was broken off between the two: it is settled so.
  if { [ "$previous" != "$release" ] || [ -e "$OPT/switching.json" ]; } && [ -d "$previous" ] && systemctl is-active -q millrace.target; then
    if has_changed; then run_units try-restart millrace-secrets.service; fi
    # Beside the one that runs, and back to it by itself if the new one does not get healthy.
    quietly "millrace upgrade $(basename "$release")" /usr/local/bin/millrace upgrade "$(basename "$release")"
  else
    if [ "$previous" != "$release" ]; then mark_changed; fi
    link "releases/$(basename "$release")" "$OPT/current"
    if has_changed && systemctl is-active -q millrace.target; then
      say '    restarting what reads what has changed'
      # At once, so that each is restarted once. S2's own server goes on: mail would wait for it.
      mapfile -t restarted < <(own_units | grep -E '\.(service|socket)$' | grep -v '^s2-lite')
      run_units try-restart "${restarted[@]}"
    fi
  fi
  run_units start "${services[@]}"
  wait_until_healthy
  # What an upgrade that was broken off had begun is over: this release is the one that runs.
  rm -f "$OPT/changed" "$OPT/switching.json"
}

# systemctl, and when it fails what the units themselves said.
run_units() {
  if systemctl "$@" >"$work/output" 2>&1 </dev/null; then return; fi
  cat "$work/output" >&8
  show_failed_units
  fail "systemctl $* did not work." "$(tail -n 2 "$work/output")" 'Mend what the lines above name and run setup again.'
}

show_failed_units() {
  local unit
  for unit in $(own_units); do
    case $(systemctl is-active "$unit" || true) in
      failed | activating)
        printf '\n%s failed. Its last lines:\n' "$unit" >&2
        journalctl -u "$unit" -n 20 --no-pager -o cat 2>&1 | sed 's/^/  | /' | tee -a "$LOG" >&2
        ;;
    esac
  done
}

is_healthy() { [ "$(curl -s -o "$work/health" -w '%{http_code}' --max-time 5 "http://$UPSTREAM_HOST:${PORT:-8080}/$1")" = 200 ]; }

wait_until_healthy() {
  local started=$SECONDS
  until is_healthy healthz; do
    if ((SECONDS - started > HEALTH_DEADLINE_SECONDS)); then
      show_failed_units
      fail "Millrace is not healthy after $HEALTH_DEADLINE_SECONDS s: $(head -c 500 "$work/health" 2>/dev/null)" 'Look: systemctl status millrace.target; journalctl -u "millrace*"'
    fi
    if (((SECONDS - started) % 10 == 9)); then say "    waiting for it, $((SECONDS - started)) s"; fi
    sleep 1
  done
  # Tools that are not live yet (a Git host that is away) are not setup's failure, and are told.
  started=$SECONDS
  until is_healthy readyz || ((SECONDS - started > READY_DEADLINE_SECONDS)); do sleep 1; done
  if is_healthy readyz; then say '    healthy and ready'; else say "    healthy, but not ready yet: $(head -c 500 "$work/health")"; fi
}
