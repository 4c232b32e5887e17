//! Matching with `*` and `?`, without building regular expressions.

/// Whether the whole of `text` matches. Both must be lower case already if case does not matter.
pub fn glob(pattern: &str, text: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return pattern == text;
    }
    let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    matches(&p, &t)
}

/// Classic two-pointer glob: on a mismatch, the last `*` swallows one more character.
fn matches(p: &[char], t: &[char]) -> bool {
    let (mut pi, mut ti) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while ti < t.len() {
        if pi < p.len() && p[pi] == '*' {
            star = Some((pi, ti));
            pi += 1;
        } else if pi < p.len() && (p[pi] == '?' || p[pi] == t[ti]) {
            pi += 1;
            ti += 1;
        } else if let Some((sp, st)) = star {
            star = Some((sp, st + 1));
            pi = sp + 1;
            ti = st + 1;
        } else {
            return false;
        }
    }
    p[pi..].iter().all(|c| *c == '*')
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a run of `text` that begins and ends at word boundaries matches. Both lower case.
pub fn glob_word(pattern: &str, text: &str) -> bool {
    if pattern.is_empty() {
        return false;
    }
    if !pattern.contains(['*', '?']) {
        return text.match_indices(pattern).any(|(at, found)| {
            let before = text[..at].chars().next_back().is_none_or(|c| !is_word(c));
            let after = text[at + found.len()..].chars().next().is_none_or(|c| !is_word(c));
            before && after
        });
    }
    let p: Vec<char> = pattern.chars().collect();
    let t: Vec<char> = text.chars().collect();
    let starts = (0..=t.len()).filter(|i| *i == 0 || !is_word(t[i - 1]));
    // A prefix match that ends at a boundary: try the ends, shortest first.
    starts.into_iter().any(|s| (s..=t.len()).any(|e| (e == t.len() || !is_word(t[e])) && matches(&p, &t[s..e])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_texts() {
        assert!(glob("a*c", "abbbc"));
        assert!(glob("*", ""));
        assert!(glob("a?c*", "abc"));
        assert!(!glob("a?c", "ac"));
        assert!(!glob("abc", "abcd"));
    }

    #[test]
    fn words() {
        assert!(glob_word("cake", "i like cake!"));
        assert!(!glob_word("cake", "cakes"));
        assert!(glob_word("cake*", "many cakes here"));
        assert!(glob_word("@room", "hey @room"));
        assert!(!glob_word("bob", "_bob"));
        assert!(glob_word("bob", "Bob".to_lowercase().as_str()));
        assert!(glob_word("foo bar", "a foo bar b"));
    }
}
