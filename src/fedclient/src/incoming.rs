//! Who sends us a request (spec: Server-Server API, "Request Authentication").

use crate::Fed;
use crate::sign::request;
use crate::verify::unauthorized;
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;
use types::{Error, Result};

/// What an `Authorization: X-Matrix` header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    origin: String,
    key: String,
    sig: String,
    destination: Option<String>,
}

impl Fed {
    /// The server that signed a request. `uri`: path and query as received; `headers`: all `Authorization` headers;
    /// `body`: the JSON body of a request that has one. 401 M_UNAUTHORIZED, 400 for a malformed header, 403 for a
    /// server that is not in `federation_domain_whitelist`.
    pub async fn authenticate(
        &self,
        method: &str,
        uri: &str,
        headers: &[&str],
        body: Option<&Value>,
    ) -> Result<OwnedServerName> {
        let me = &self.0.signer.server_name;
        let mut parsed = Vec::new();
        for header in headers.iter().filter(|h| h.starts_with("X-Matrix")) {
            let header =
                parse(header).ok_or_else(|| Error::client(400, "M_UNAUTHORIZED", "Malformed Authorization header"))?;
            if let Some(destination) = header.destination.as_deref().filter(|d| d != me) {
                return Err(unauthorized(format!("Destination mismatch in auth header, received: {destination:?}")));
            }
            parsed.push(header);
        }
        let Some(origin) = parsed.first().map(|h| h.origin.clone()) else {
            return Err(unauthorized("Missing Authorization headers".into()));
        };
        if !self.0.cx.config.federation.allows(&origin) {
            return Err(Error::forbidden(format!("Federation with {origin} is not allowed")));
        }
        let mut signed = request(method, uri, &origin, me, body);
        for header in parsed.into_iter().filter(|h| h.origin == origin) {
            signed["signatures"][&header.origin][&header.key] = header.sig.into();
        }
        self.verify_json(&origin, &signed, self.0.cx.now_ms()).await?;
        // Whoever asks us can most likely be asked as well.
        let (fed, up) = (self.clone(), origin.clone());
        tokio::spawn(async move { fed.mark_up(&up).await });
        ServerName::parse(&*origin).map_err(|_| Error::client(400, "M_UNAUTHORIZED", "Malformed Authorization header"))
    }
}

/// `X-Matrix origin="…",key="…",sig="…"[,destination="…"]`; names are case-insensitive, quotes optional.
fn parse(header: &str) -> Option<Header> {
    let mut rest = header.strip_prefix("X-Matrix")?.trim_start();
    let (mut origin, mut key, mut sig, mut destination) = (None, None, None, None);
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        match name.trim().to_ascii_lowercase().as_str() {
            "origin" => origin = Some(value),
            "key" => key = Some(value),
            "sig" => sig = Some(value),
            "destination" => destination = Some(value),
            _ => {}
        }
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
    let origin = origin.filter(|o| ServerName::parse(o.as_str()).is_ok())?;
    Some(Header { origin, key: key?, sig: sig?, destination })
}

/// A token or a quoted string, and what comes after it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[i + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_in_all_their_forms() {
        let expected = Header {
            origin: "a.example:8448".into(),
            key: "ed25519:k".into(),
            sig: "AB+/".into(),
            destination: Some("b.example".into()),
        };
        for text in [
            r#"X-Matrix origin="a.example:8448",key="ed25519:k",sig="AB+/",destination="b.example""#,
            r#"X-Matrix  Origin=a.example:8448 ,  key="ed25519:\k",sig="AB+/",destination="b.example",new="x,y""#,
        ] {
            assert_eq!(parse(text).as_ref(), Some(&expected), "{text}");
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        for text in [
            "X-Matrix",
            "X-Matrix origin=a",
            r#"X-Matrix origin="a,key=b,sig=c"#,
            "X-Matrix origin=/,key=b,sig=c",
            "X-Matrix é",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
