//! Random identifiers and tokens in Synapse's shapes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rand::Rng;

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `n` random letters a–zA–Z, from the operating system's seeded CSPRNG.
pub fn letters(n: usize) -> String {
    let mut rng = rand::rng();
    (0..n).map(|_| LETTERS[rng.random_range(0..LETTERS.len())] as char).collect()
}

/// A generated device id: ten capital letters.
pub fn device_id() -> String {
    letters(10).to_ascii_uppercase()
}

/// `syt_…`: an access token for a user with this localpart.
pub fn access_token(localpart: &str) -> String {
    user_token("syt", localpart)
}

/// `syr_…`: a refresh token for a user with this localpart.
pub fn refresh_token(localpart: &str) -> String {
    user_token("syr", localpart)
}

/// `syl_…`: a single-use login token.
pub fn login_token() -> String {
    with_checksum(format!("syl_{}", letters(20)))
}

/// Shape and checksum of a refresh token; Synapse refuses others before looking them up.
pub fn refresh_token_is_wellformed(token: &str) -> bool {
    let parts: Vec<&str> = token.split('_').collect();
    let [prefix, _, _, crc] = parts[..] else { return false };
    prefix == "syr" && base62_crc(&token[..token.len() - crc.len() - 1]) == crc
}

fn user_token(prefix: &str, localpart: &str) -> String {
    with_checksum(format!("{prefix}_{}_{}", STANDARD_NO_PAD.encode(localpart), letters(20)))
}

fn with_checksum(base: String) -> String {
    let crc = base62_crc(&base);
    format!("{base}_{crc}")
}

/// Base 62 of the CRC32, at least six digits.
fn base62_crc(base: &str) -> String {
    let mut n = crc32fast::hash(base.as_bytes());
    let mut digits = Vec::new();
    while n > 0 {
        digits.push(BASE62[(n % 62) as usize]);
        n /= 62;
    }
    while digits.len() < 6 {
        digits.push(b'0');
    }
    digits.iter().rev().map(|b| *b as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_agree_with_synapse() {
        for token in ["syt_YWxpY2U_PmTaBRghNPphwjvvmPWP_16Q0Ln", "syt_Ym9i_QacVxByoQgzbSAsxOVYk_1zG0cQ"] {
            let (base, crc) = token.rsplit_once('_').unwrap();
            assert_eq!(base62_crc(base), crc);
        }
        assert!(refresh_token_is_wellformed("syr_YWxpY2U_zzzCSxxKMNVKeFGcLppr_2XLIMV"));
        assert!(!refresh_token_is_wellformed("syr_YWxpY2U_zzzCSxxKMNVKeFGcLppr_2XLIMW"));
        assert!(refresh_token_is_wellformed(&refresh_token("bob")));
    }
}
