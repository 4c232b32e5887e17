//! Listening sockets that systemd holds for us (sd_listen_fds(3)): they outlive the process, so that nobody who
//! connects while it restarts is refused. A socket belongs to the listener with the same address.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The first descriptor that is passed on.
const FIRST: RawFd = 3;

enum Socket {
    Unix(PathBuf, UnixListener),
    Tcp(SocketAddr, TcpListener),
}

/// What was passed on and not yet taken.
#[derive(Default)]
pub struct Inherited(Vec<Socket>);

impl Inherited {
    /// Takes over what the environment names. Call it once, before anything else opens files.
    pub fn take() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        if number("LISTEN_PID") != Some(std::process::id()) {
            return Self::default();
        }
        let count = RawFd::try_from(number("LISTEN_FDS").unwrap_or(0)).unwrap_or(0);
        // SAFETY: by the protocol these descriptors are open and nobody else's.
        let descriptors = (FIRST..FIRST + count).map(|fd| unsafe {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            OwnedFd::from_raw_fd(fd)
        });
        Self(descriptors.filter_map(socket).collect())
    }

    /// The socket bound to a path.
    pub fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let at = self.0.iter().position(|s| matches!(s, Socket::Unix(bound, _) if bound == path))?;
        match self.0.swap_remove(at) {
            Socket::Unix(_, listener) => Some(listener),
            Socket::Tcp(..) => None,
        }
    }

    /// The socket bound to an address.
    pub fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|s| matches!(s, Socket::Tcp(bound, _) if *bound == address))?;
        match self.0.swap_remove(at) {
            Socket::Tcp(_, listener) => Some(listener),
            Socket::Unix(..) => None,
        }
    }

    /// Addresses that no listener of the configuration has.
    pub fn unused(&self) -> Vec<String> {
        let name = |socket: &Socket| match socket {
            Socket::Unix(path, _) => path.display().to_string(),
            Socket::Tcp(address, _) => address.to_string(),
        };
        self.0.iter().map(name).collect()
    }
}

/// A socket by its own address; tokio wants it not to block.
fn socket(descriptor: OwnedFd) -> Option<Socket> {
    let unix = UnixListener::from(descriptor);
    if let Ok(address) = unix.local_addr() {
        unix.set_nonblocking(true).ok()?;
        return Some(Socket::Unix(address.as_pathname()?.to_owned(), unix));
    }
    let tcp = TcpListener::from(OwnedFd::from(unix));
    let address = tcp.local_addr().ok()?;
    tcp.set_nonblocking(true).ok()?;
    Some(Socket::Tcp(address, tcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_known_by_their_addresses() {
        let path = std::env::temp_dir().join(format!("plexus-inherited-{}.sock", std::process::id()));
        let unix = UnixListener::bind(&path).expect("a unix socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a TCP socket");
        let address = tcp.local_addr().expect("its address");
        let _ = std::fs::remove_file(&path);
        let mut all = Inherited([OwnedFd::from(unix), OwnedFd::from(tcp)].into_iter().filter_map(socket).collect());
        assert!(all.unix(Path::new("/elsewhere")).is_none());
        assert!(all.unix(&path).is_some() && all.unix(&path).is_none());
        assert_eq!(all.unused(), [address.to_string()]);
        assert!(all.tcp(address).is_some() && all.unused().is_empty());
    }
}
