//! Telling systemd (or whoever set `NOTIFY_SOCKET`) how we are: sd_notify(3).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// While a start takes its time, systemd is told so this often.
const STILL_STARTING: Duration = Duration::from_secs(10);

/// Sends states such as `READY=1`, one a line. Without `NOTIFY_SOCKET` nothing happens; a failure is not worth
/// dying for.
pub fn notify(states: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let path = path.to_string_lossy();
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&*path),
    };
    if let Ok(address) = address {
        let _ = socket.send_to_addr(states.as_bytes(), &address);
    }
}

/// Begins a reload: systemd takes the next `READY=1` for its end if it is told when that began (Type=notify-reload).
pub fn reloading() {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=Reading limits and log levels again"));
}

/// Waits for `work`, which is part of starting and may have to wait for others or make a schema.
pub async fn starting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let patience = 3 * STILL_STARTING.as_micros();
    loop {
        notify(&format!("EXTEND_TIMEOUT_USEC={patience}\nSTATUS={what}"));
        if let Ok(done) = tokio::time::timeout(STILL_STARTING, &mut work).await {
            return done;
        }
    }
}

/// Sends signs of life as often as the unit's WatchdogSec wants them. They come from a task of the runtime, so they
/// end when that no longer turns; that the database is away is no reason to be killed.
pub fn watchdog() {
    let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse::<u64>().ok()).filter(|us| *us > 0);
    let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let Some(micros) = micros.filter(|_| ours) else { return };
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_micros(micros / 3));
        loop {
            beat.tick().await;
            notify("WATCHDOG=1");
        }
    });
}
