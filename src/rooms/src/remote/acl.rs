//! Which servers a room shuts out (spec: `m.room.server_acl`).

use ruma::ServerName;
use serde_json::{Map, Value};
use types::Pdu;

/// Whether the room's access list lets a server take part.
pub(crate) fn allows(acl: &Pdu, server: &ServerName) -> bool {
    let content: Map<String, Value> = acl.content_as().unwrap_or_default();
    let host = server.host();
    if content.get("allow_ip_literals").and_then(Value::as_bool) == Some(false) && server.is_ip_literal() {
        return false;
    }
    let any = |key: &str| {
        let globs = content.get(key).and_then(Value::as_array).into_iter().flatten();
        globs.filter_map(Value::as_str).any(|glob| matches(glob, host))
    };
    !any("deny") && any("allow")
}

/// `*` stands for any text, `?` for one character; case does not matter.
fn matches(glob: &str, host: &str) -> bool {
    let (glob, host): (Vec<char>, Vec<char>) = (glob.to_lowercase().chars().collect(), host.to_lowercase().chars().collect());
    let (mut g, mut h) = (0, 0);
    // Where the last `*` was, and how much of the host it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while h < host.len() {
        if g < glob.len() && glob[g] == '*' {
            star = Some((g, h));
            g += 1;
        } else if g < glob.len() && (glob[g] == '?' || glob[g] == host[h]) {
            (g, h) = (g + 1, h + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (g, h) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruma::{RoomVersionId, event_id};

    fn allowed(content: &str, server: &str) -> bool {
        let json = format!(
            r#"{{"type":"m.room.server_acl","state_key":"","sender":"@a:b","room_id":"!r:b","content":{content},"origin_server_ts":1}}"#
        );
        let acl = Pdu::parse(&json, event_id!("$e"), &RoomVersionId::V10).unwrap();
        allows(&acl, <&ServerName>::try_from(server).unwrap())
    }

    #[test]
    fn lists_of_globs() {
        let acl = r#"{"allow":["*"],"deny":["*.evil.com","evil.com","e?il.org"],"allow_ip_literals":false}"#;
        assert!(allowed(acl, "good.com:8448"));
        assert!(allowed(acl, "notevil.com"));
        assert!(!allowed(acl, "EVIL.com:1"));
        assert!(!allowed(acl, "a.b.evil.com"));
        assert!(!allowed(acl, "evil.org"));
        assert!(!allowed(acl, "1.2.3.4:8448"));
        assert!(!allowed("{}", "good.com"));
        assert!(!allowed(r#"{"allow":["a*b*c"]}"#, "axxbyy"));
        assert!(allowed(r#"{"allow":["a*b*c"]}"#, "axxbyyc"));
    }
}
