//! How the binary is linked.

use std::ffi::CStr;

/// The first glibc whose loader knows packed relative relocations.
const GLIBC: (u32, u32) = (2, 36);

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Relocations take 30 kB instead of 1.5 MB, which every process would read, and keep, when it starts.
    if std::env::var("HOST") == std::env::var("TARGET") && glibc().is_some_and(|version| version >= GLIBC) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Version of the C library of this machine; None if it is another one.
#[cfg(target_env = "gnu")]
fn glibc() -> Option<(u32, u32)> {
    // SAFETY: returns a static string that ends with a zero byte.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    let (major, minor) = version.to_str().ok()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(not(target_env = "gnu"))]
fn glibc() -> Option<(u32, u32)> {
    None
}
