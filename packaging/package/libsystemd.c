/* The outside of libsystemd.so.0, to link against where the real one is another machine's or asks for a newer glibc.
 * Names and versions (libsystemd.map) end up in the binary. The last two are what the systemd crate's build asks for. */
int sd_pid_notify_with_fds(void) { return 0; }
int sd_watchdog_enabled(void) { return 0; }
int sd_listen_fds_with_names(void) { return 0; }
int sd_id128_get_machine_app_specific(void) { return 0; }
