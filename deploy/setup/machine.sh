# shellcheck shell=bash
# Steps of setup.sh on the machine itself: S2's own server, and the account that Millrace runs under.
# shellcheck disable=SC2154 # variables of setup.sh

do_s2() {
  local found
  if [ "${S2_LITE:-}" != 1 ]; then return; fi
  found=$(fit_s2) || {
    command -v cargo >/dev/null || fail 'There is no s2 on the PATH, and no cargo to build it with.' \
      "Install it (https://s2.dev/docs/cli/installation) as /usr/local/bin/s2, or cargo, and run setup again."
    say '    this takes many minutes'
    quietly "cargo install s2-cli $S2_VERSION" cargo install --locked s2-cli --version "$S2_VERSION" --root "$work/s2"
    found=$work/s2/bin/s2
  }
  if [ "$found" = "$OPT/bin/s2" ]; then return; fi
  if is_shared_program "$found"; then link "$(readlink -f "$found")" "$OPT/bin/s2"; else install -m 0755 "$found" "$OPT/bin/s2"; fi
}

do_account() {
  record user millrace
  if ! getent passwd millrace >/dev/null; then
    quietly 'adding the user millrace' useradd --system --user-group --home-dir "$DATA" --no-create-home --shell /usr/sbin/nologin millrace
  fi
  if ! [ -d "$DATA" ]; then install -d -m 0750 -o millrace -g millrace "$DATA"; fi
}
