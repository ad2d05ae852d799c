#!/usr/bin/env bats
# Functions of deploy/uninstall.sh: no root, nothing outside of a folder of the test's. The whole of it on a machine:
# test/fresh/setup.sh.
# shellcheck disable=SC1090,SC2034,SC2317 # variables of the functions under test

bats_require_minimum_version 1.5.0

setup() {
  # Everything but the last line, which would start it.
  sed '$d' "$BATS_TEST_DIRNAME/../../deploy/uninstall.sh" >"$BATS_TEST_TMPDIR/functions.sh"
  # shellcheck source=/dev/null
  . "$BATS_TEST_TMPDIR/functions.sh"
  ETC=$BATS_TEST_TMPDIR/etc DATA=$BATS_TEST_TMPDIR/data INSTALLED=$BATS_TEST_TMPDIR/etc/installed
  mkdir -p "$ETC" "$DATA"
  echo mail >"$DATA/streams.db"
  printf 'unit %s\n' millrace.target millrace.service millrace-sync.timer >"$INSTALLED"
  systemctl() {
    echo "$*" >>"$BATS_TEST_TMPDIR/systemctl"
    # The timer is not at work.
    case $* in 'is-active -q millrace-sync.timer') return 3 ;; esac
  }
  pgrep() { return 1; }
}

asked() { grep -v is-active "$BATS_TEST_TMPDIR/systemctl"; }

@test "an export that cannot be written leaves Millrace running, and enabled" {
  : >"$BATS_TEST_TMPDIR/full"
  stop_units
  run export_data "$BATS_TEST_TMPDIR/full"
  [ "$status" -eq 1 ]
  [[ $output == *'nothing was removed, and what ran was started again'* ]]
  [ "$(asked | tail -n 1)" = 'start millrace.target millrace.service' ]
  [[ $(asked) != *disable* ]]
}

@test "an export holds the data and the configuration" {
  stop_units
  run export_data "$BATS_TEST_TMPDIR/out"
  [ "$status" -eq 0 ]
  tar -xzf "$BATS_TEST_TMPDIR"/out/*.tar.gz -C "$BATS_TEST_TMPDIR/out"
  cmp "$DATA/streams.db" "$BATS_TEST_TMPDIR/out$DATA/streams.db"
  [[ $(asked) != *start* ]]
}
