//! The commands of the bus: one line each, `NAME` and its arguments.

use serde_json::Value;
use std::fmt;

/// A command of Synapse's replication protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Asks every process for its positions.
    Replicate,
    Position {
        stream: String,
        instance: String,
        previous: i64,
        token: i64,
    },
    /// `token` None: more rows of the same token follow (`batch`).
    Rdata {
        stream: String,
        instance: String,
        token: Option<i64>,
        row: Value,
    },
    UserSync(UserSync),
    /// The process stopped: none of its users syncs there any more.
    ClearUserSync {
        instance_id: String,
    },
    FederationAck {
        instance: String,
        token: i64,
    },
    UserIp(UserIp),
    RemoteServerUp {
        server: String,
    },
    LockReleased {
        instance: String,
        name: String,
        key: String,
    },
    NewActiveTask {
        id: String,
    },
    CancelTask {
        id: String,
    },
}

/// A device began or stopped to sync at a process.
#[derive(Clone, Debug, PartialEq)]
pub struct UserSync {
    /// Random letters the process chose at its start.
    pub instance_id: String,
    pub user_id: String,
    pub device_id: Option<String>,
    pub syncing: bool,
    pub last_sync_ms: i64,
}

/// A client was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct UserIp {
    pub user_id: String,
    pub access_token: String,
    pub ip: String,
    pub user_agent: String,
    pub device_id: Option<String>,
    pub last_seen_ms: i64,
}

impl Command {
    /// Reads a line. The error says what is wrong with it, without its content (tokens may be in it).
    pub fn parse(line: &str) -> Result<Command, &'static str> {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        Ok(match name {
            "REPLICATE" => Command::Replicate,
            "POSITION" => {
                let [stream, instance, previous, token] = fields(rest)?;
                Command::Position {
                    stream: stream.into(),
                    instance: instance.into(),
                    previous: int(previous)?,
                    token: int(token)?,
                }
            }
            "RDATA" => {
                let [stream, instance, token, row] = fields(rest)?;
                Command::Rdata {
                    stream: stream.into(),
                    instance: instance.into(),
                    token: if token == "batch" { None } else { Some(int(token)?) },
                    row: serde_json::from_str(row).map_err(|_| "RDATA row is not JSON")?,
                }
            }
            "USER_SYNC" => Command::UserSync(user_sync(rest)?),
            "CLEAR_USER_SYNC" => Command::ClearUserSync { instance_id: rest.into() },
            "FEDERATION_ACK" => {
                let [instance, token] = fields(rest)?;
                Command::FederationAck { instance: instance.into(), token: int(token)? }
            }
            "USER_IP" => Command::UserIp(user_ip(rest)?),
            "REMOTE_SERVER_UP" => Command::RemoteServerUp { server: rest.into() },
            "LOCK_RELEASED" => {
                let (instance, name, key) =
                    serde_json::from_str(rest).map_err(|_| "LOCK_RELEASED is not three strings")?;
                Command::LockReleased { instance, name, key }
            }
            "NEW_ACTIVE_TASK" => Command::NewActiveTask { id: rest.into() },
            "CANCEL_TASK" => Command::CancelTask { id: rest.into() },
            _ => return Err("unknown command"),
        })
    }
}

fn int(s: &str) -> Result<i64, &'static str> {
    s.parse().map_err(|_| "not a number")
}

/// Splits at spaces into exactly N fields; the last one may hold spaces.
fn fields<const N: usize>(rest: &str) -> Result<[&str; N], &'static str> {
    let parts: Vec<&str> = rest.splitn(N, ' ').collect();
    parts.try_into().map_err(|_| "too few arguments")
}

fn user_sync(rest: &str) -> Result<UserSync, &'static str> {
    let [instance_id, user_id, device_id, state, last] = fields(rest)?;
    Ok(UserSync {
        instance_id: instance_id.into(),
        user_id: user_id.into(),
        device_id: (device_id != "None").then(|| device_id.to_owned()),
        syncing: match state {
            "start" => true,
            "end" => false,
            _ => return Err("USER_SYNC state is neither start nor end"),
        },
        last_sync_ms: int(last)?,
    })
}

fn user_ip(rest: &str) -> Result<UserIp, &'static str> {
    let [user_id, json] = fields(rest)?;
    let (access_token, ip, user_agent, device_id, last_seen_ms) =
        serde_json::from_str(json).map_err(|_| "USER_IP arguments have another shape")?;
    Ok(UserIp { user_id: user_id.into(), access_token, ip, user_agent, device_id, last_seen_ms })
}

/// JSON of strings and numbers cannot fail to serialise; an empty text would be refused by every reader.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The space belongs to the line.
            Command::Replicate => f.write_str("REPLICATE "),
            Command::Position { stream, instance, previous, token } => {
                write!(f, "POSITION {stream} {instance} {previous} {token}")
            }
            Command::Rdata { stream, instance, token: Some(token), row } => {
                write!(f, "RDATA {stream} {instance} {token} {row}")
            }
            Command::Rdata { stream, instance, token: None, row } => write!(f, "RDATA {stream} {instance} batch {row}"),
            Command::UserSync(s) => {
                let device = s.device_id.as_deref().unwrap_or("None");
                let state = if s.syncing { "start" } else { "end" };
                write!(f, "USER_SYNC {} {} {device} {state} {}", s.instance_id, s.user_id, s.last_sync_ms)
            }
            Command::ClearUserSync { instance_id } => write!(f, "CLEAR_USER_SYNC {instance_id}"),
            Command::FederationAck { instance, token } => write!(f, "FEDERATION_ACK {instance} {token}"),
            Command::UserIp(u) => {
                let rest = (&u.access_token, &u.ip, &u.user_agent, &u.device_id, u.last_seen_ms);
                write!(f, "USER_IP {} {}", u.user_id, json(&rest))
            }
            Command::RemoteServerUp { server } => write!(f, "REMOTE_SERVER_UP {server}"),
            Command::LockReleased { instance, name, key } => {
                write!(f, "LOCK_RELEASED {}", json(&(instance, name, key)))
            }
            Command::NewActiveTask { id } => write!(f, "NEW_ACTIVE_TASK {id}"),
            Command::CancelTask { id } => write!(f, "CANCEL_TASK {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_captured_from_synapse_survive() {
        for line in [
            "REPLICATE ",
            "POSITION events ep1 1 1",
            "POSITION federation master 0 0",
            r#"RDATA events ep1 batch ["ev",["$3Q","!3f","m.room.member","@alice:hs1.test",null,null,"join",false,false]]"#,
            r#"RDATA events ep1 44 ["state",["!Am","m.room.member","@dave:hs1.test",null]]"#,
            r#"RDATA caches gw1 2 ["user_last_seen_monthly_active",null,1795426234770]"#,
            r#"RDATA typing gw1 2 ["!3f",[]]"#,
            "USER_SYNC obPNN @bob:hs1.test HNHGEXUIGK start 1795427067460",
            "USER_SYNC obPNN @bob:hs1.test None end 1795427067592",
            r#"USER_IP @bob:hs1.test ["syt_Ym9i_QacV_1zG0cQ","127.0.0.1","Python-urllib/3.11 x","HNHGEXUIGK",1795427062781]"#,
            r#"USER_IP @bob:hs1.test ["t","::1","",null,1]"#,
            "FEDERATION_ACK gw1 0",
            r#"LOCK_RELEASED ["gw1","one_time_key_upload_lock","@alice:hs1.test_XMMMMWMKRS"]"#,
            "NEW_ACTIVE_TASK OKMeNbMWESmavDWG",
            "CANCEL_TASK OKMeNbMWESmavDWG",
            "REMOTE_SERVER_UP hs2.test",
            "CLEAR_USER_SYNC PJETg",
        ] {
            assert_eq!(Command::parse(line).expect(line).to_string(), line);
        }
    }

    #[test]
    fn bad_lines_are_refused() {
        for line in [
            "",
            "WHAT x",
            "POSITION events ep1 1",
            "POSITION events ep1 a b",
            "RDATA events ep1 1 [",
            "RDATA events ep1",
            "USER_SYNC a @b:c D maybe 1",
            "USER_IP @b:c [1]",
            r#"LOCK_RELEASED ["a"]"#,
        ] {
            assert!(Command::parse(line).is_err(), "{line}");
        }
    }
}
