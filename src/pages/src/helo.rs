//! Mail servers that know no EHLO: a client has to try HELO then (RFC 5321, section 3.2). No TLS and no login, which
//! are extensions.

use lettre::Message;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use types::{Error, Result};

/// The whole conversation takes no longer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// No reply of a server has more lines.
const MAX_LINES: usize = 100;

/// Sends one mail.
pub async fn send(host: &str, port: u16, hello: &str, message: &Message) -> Result<()> {
    let outcome = tokio::time::timeout(TIMEOUT, converse(host, port, hello, message)).await;
    outcome.map_err(|_| Error::internal("the mail server did not answer in time"))?
}

async fn converse(host: &str, port: u16, hello: &str, message: &Message) -> Result<()> {
    let mut stream = BufStream::new(TcpStream::connect((host, port)).await?);
    expect(&mut stream, 220).await?;
    let envelope = message.envelope();
    let from = envelope.from().map(ToString::to_string).unwrap_or_default();
    command(&mut stream, &format!("HELO {hello}"), 250).await?;
    command(&mut stream, &format!("MAIL FROM:<{from}>"), 250).await?;
    for to in envelope.to() {
        command(&mut stream, &format!("RCPT TO:<{to}>"), 250).await?;
    }
    command(&mut stream, "DATA", 354).await?;
    stream.write_all(&stuffed(&message.formatted())).await?;
    command(&mut stream, ".", 250).await?;
    // The mail is sent; how the server says goodbye doesn't matter.
    stream.write_all(b"QUIT\r\n").await?;
    Ok(stream.flush().await?)
}

/// A mail's text with lines that begin with a dot escaped, and a line end at its end.
fn stuffed(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    let mut at_start = true;
    for byte in text {
        if at_start && *byte == b'.' {
            out.push(b'.');
        }
        out.push(*byte);
        at_start = *byte == b'\n';
    }
    if !at_start {
        out.extend(b"\r\n");
    }
    out
}

async fn command(stream: &mut BufStream<TcpStream>, line: &str, wanted: u16) -> Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    stream.flush().await?;
    expect(stream, wanted).await
}

async fn expect(stream: &mut BufStream<TcpStream>, wanted: u16) -> Result<()> {
    let mut line = String::new();
    for _ in 0..MAX_LINES {
        line.clear();
        stream.read_line(&mut line).await?;
        // "250-more follows", "250 the last".
        if line.as_bytes().get(3) == Some(&b'-') {
            continue;
        }
        if line.get(..3) == Some(wanted.to_string().as_str()) {
            return Ok(());
        }
        break;
    }
    Err(Error::internal(format!("the mail server said {:?} where {wanted} was due", line.trim_end())))
}

#[cfg(test)]
mod tests {
    use super::stuffed;

    #[test]
    fn dots_are_doubled_and_the_last_line_ends() {
        assert_eq!(stuffed(b".a\r\nb.\r\n..c"), b"..a\r\nb.\r\n...c\r\n");
        assert_eq!(stuffed(b"a\r\n"), b"a\r\n");
    }
}
