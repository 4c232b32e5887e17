//! YAML written for people: block style, quotes only where they are needed.

use crate::yaml::{Value, resolve};

/// Text as a YAML scalar.
pub fn text(value: &str) -> String {
    let plain = !value.is_empty()
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+~".contains(c))
        && !value.starts_with(['-', '~', '.'])
        && matches!(resolve(value), Ok(Value::Str(_)));
    // A JSON string is a YAML string in double quotes.
    if plain { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

/// `[a, b]`
pub fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|i| text(i.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// `key: value` for any TOML value, lists and tables in flow style below the first level.
pub fn entry(key: &str, value: &toml::Value) -> String {
    match value {
        toml::Value::Table(table) if !table.is_empty() => {
            let lines: String = table.iter().map(|(k, v)| format!("  {}: {}\n", text(k), flow(v))).collect();
            format!("{}:\n{lines}", text(key))
        }
        _ => format!("{}: {}\n", text(key), flow(value)),
    }
}

fn flow(value: &toml::Value) -> String {
    match value {
        toml::Value::String(s) => text(s),
        toml::Value::Integer(i) => i.to_string(),
        toml::Value::Float(f) => format!("{f:?}"),
        toml::Value::Boolean(b) => b.to_string(),
        toml::Value::Datetime(d) => text(&d.to_string()),
        toml::Value::Array(a) => format!("[{}]", a.iter().map(flow).collect::<Vec<_>>().join(", ")),
        toml::Value::Table(t) => {
            format!("{{{}}}", t.iter().map(|(k, v)| format!("{}: {}", text(k), flow(v))).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[test]
    fn what_is_written_reads_back() {
        for value in [
            "plain",
            "/a/b.sock",
            "yes",
            "1_000",
            "0660",
            "",
            "a: b",
            "# x",
            "~",
            "ä\n\"",
            "-x",
            "127.0.0.1",
            "::1",
            "@bot:x",
            "1e5",
            "!room",
        ] {
            let node = parse(&format!("k: {}\nl: {}\n", text(value), list(&[value])), 0).expect(value).value.to_json();
            assert_eq!(node["k"], value);
            assert_eq!(node["l"][0], value);
        }
        let table: toml::Table = toml::from_str(
            "[rc_message]\nper_second = 5.0\nburst_count = 10\n[x]\ny = [{ a = 'off', 'b c' = true }]\n",
        )
        .expect("toml");
        let yaml: String = table.iter().map(|(k, v)| entry(k, v)).collect();
        let json = parse(&yaml, 0).expect("yaml").value.to_json();
        assert_eq!(
            json,
            serde_json::json!({"rc_message": {"per_second": 5.0, "burst_count": 10}, "x": {"y": [{"a": "off", "b c": true}]}})
        );
    }
}
