# shellcheck shell=bash
# A part of setup.sh beside: upgrade, a release that does not get healthy, and rollback, with mail coming in through
# HTTPS all the while; and an upgrade that is killed at each of its steps.
# shellcheck disable=SC2154 # variables of setup.sh

# How long the unhealthy one may take, in place of 90 s.
UNHEALTHY_SECONDS=10

# make_release BRANCH FILE SED-SCRIPT: a commit on top of what is checked out there; prints its release's name.
make_release() {
  [ -d "$work/author" ] || git clone -q "$root/srv/millrace.git" "$work/author"
  git -C "$work/author" checkout -q -B "$1"
  sed -i "$3" "$work/author/$2"
  git -C "$work/author" -c user.name=author -c user.email=author@example.com commit -qam "$1"
  git -C "$work/author" push -q origin "$1"
  git -C "$work/author" rev-parse HEAD | cut -c -12
}

runs_release() { # runs_release NAME: it is current, its units are installed, all are active, and it is ready
  [ "$(inside readlink /opt/millrace/current)" = "releases/$1" ] || fail "$1 is not current"
  inside cmp "/opt/millrace/current/deploy/systemd/millrace-runner.service" /etc/systemd/system/millrace-runner.service || fail "the units are not those of $1"
  inside systemctl is-active -q millrace-{ingest,runner,outbox} || fail "with $1 not all units are active"
  inside curl -sf http://127.0.0.1:8080/readyz >"$work/ready" || fail "$1 is not ready"
}

check_upgrade() {
  local first second loading started=$SECONDS
  first=$(basename "$(inside readlink /opt/millrace/current)")
  second=$(make_release main deploy/systemd/millrace-runner.service 's/^Description=.*/& (newer)/')
  make_release sick src/admin/monitor-routes.ts 's/ ? 200 : 503/ ? 503 : 503/' >/dev/null
  RESEND_API_KEY=$KEY exec_beside "$node" test/fresh/load-through-caddy.ts "$STAND_IN" "$PUBLIC_URL" \
    "$root/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt" >"$work/load" 2>&1 &
  loading=$!
  pids+=("$loading")
  inside millrace upgrade main >"$work/setup" 2>&1 || fail 'upgrade'
  runs_release "$second"
  passed "upgraded under load"
  if inside millrace upgrade --within "$UNHEALTHY_SECONDS" sick >"$work/setup" 2>&1; then fail 'a release that does not get healthy counts as well'; fi
  grep -q "was switched back to $second" "$work/setup" || fail 'it does not say that it switched back'
  runs_release "$second"
  passed 'a release that does not get healthy was switched back'
  inside millrace rollback >"$work/setup" 2>&1 || fail 'rollback'
  runs_release "$first"
  kill -TERM "$loading"
  wait "$loading" || fail "under load: $(tail -n 12 "$work/load")"
  passed "rolled back under load; $((SECONDS - started)) s long: $(tail -n 1 "$work/load")"
}

# kill -9 at each step, and at last a reboot: whatever runs then answers mail, doctor tells of what is open, and the
# owner's next setup.sh, which takes the newer release anyhow, settles it.
check_broken_upgrade() {
  local first second said
  first=$(basename "$(inside readlink /opt/millrace/current)")
  second=$(make_release main deploy/systemd/millrace-runner.service 's/^Description=.*/& (newer)/')
  for said in Fetching Preparing Asking Switching last; do
    # Killed early or late in the switch, it goes on with it or begins it again.
    if [ "$said" = last ]; then said=$(inside sh -c 'test -e /opt/millrace/switching.json && echo An.earlier || echo Watching'); fi
    kill_upgrade_at "$said"
    mail "killed at $said" "$(rev <<<"killed at $said")"
  done
  [ "$(inside readlink /opt/millrace/current)" = "releases/$second" ] || fail 'the last one was killed before the switch'
  inside millrace doctor >"$work/doctor" || true
  grep -q 'was not confirmed' "$work/doctor" || fail 'doctor does not tell of an upgrade that was broken off'
  check_reboot
  set_up || fail 'setup after an upgrade that was broken off'
  runs_release "$second"
  [ "$(inside readlink /opt/millrace/previous)" = "releases/$first" ] || fail 'there is no way back'
  inside millrace doctor >"$work/doctor" || true
  grep -q 'no upgrade was broken off' "$work/doctor" || fail 'setup does not settle an upgrade that was broken off'
  mail opq qpo
  passed 'an upgrade that was killed at each of its steps was harmless, and setup.sh settled it'
}

kill_upgrade_at() { # kill_upgrade_at WORD: as soon as it says so
  local run
  : >"$work/setup"
  inside millrace upgrade main >"$work/setup" 2>&1 &
  run=$!
  wait_for "upgrade to say $1" grep -q "^$1" "$work/setup"
  inside pkill -KILL -f 'src/main.ts upgrade' || fail "it was over before it could be killed at $1"
  wait "$run" 2>/dev/null || true
}
