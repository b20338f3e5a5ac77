//! Who is at the other end of a connection: the Lambda whose call is under way.
//!
//! Linux tells through `/proc` which process holds a socket. Elsewhere nobody is found and nobody killed, and the
//! tests that count on a kill say so.

use std::fs;
use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};

/// Kills the Lambda at the other end of the connection from `peer` to `here`; its function's name, if it was one.
pub(super) fn kill_lambda(peer: SocketAddr, here: SocketAddr) -> Option<String> {
    let id = process(&socket(peer.port(), here.port())?)?;
    // Nothing but a function of ours may be hit, whoever else speaks to this port.
    let function = function(id).filter(|name| name.starts_with("keywheel-"))?;
    kill_process(Pid::from_raw(id)?, Signal::KILL).ok()?;
    Some(function)
}

/// The socket that is bound to `local` and connected to `remote`, as a process's file table names it.
fn socket(local: u16, remote: u16) -> Option<String> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let (local, remote) = (format!("0100007F:{local:04X}"), format!("0100007F:{remote:04X}"));
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.get(1) == Some(&&*local) && row.get(2) == Some(&&*remote))?;
    Some(format!("socket:[{}]", row.get(9)?))
}

fn process(socket: &str) -> Option<i32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let holds = files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket));
        holds.then_some(id)
    })
}

/// The function that a process runs, by the one variable of its environment that is looked at.
fn function(id: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{id}/environ")).ok()?;
    let name = b"AWS_LAMBDA_FUNCTION_NAME=";
    let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(name))?;
    String::from_utf8(value.to_vec()).ok()
}
