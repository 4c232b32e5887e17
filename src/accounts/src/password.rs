//! Passwords: bcrypt of the normalised password with the pepper, and what is demanded of new ones.

use crate::Accounts;
use config::registration::PasswordPolicy;
use types::{Error, Result};
use unicode_normalization::UnicodeNormalization;

/// bcrypt reads no more.
const MAX_BYTES: usize = 72;

fn material(password: &str, pepper: &str) -> Vec<u8> {
    let mut bytes = password.nfkc().collect::<String>().into_bytes();
    bytes.extend_from_slice(pepper.as_bytes());
    bytes.truncate(MAX_BYTES);
    bytes
}

impl Accounts {
    /// Hashes a new password.
    pub async fn hash_password(&self, password: &str) -> Result<String> {
        let material = material(password, self.cx.config.auth.pepper.expose());
        let cost = self.cx.config.registration.bcrypt_rounds;
        let _turn = self.inner.hashing.acquire().await?;
        let parts =
            tokio::task::spawn_blocking(move || bcrypt::hash_with_salt(material, cost, rand::random::<[u8; 16]>()));
        Ok(parts.await??.format_for_version(bcrypt::Version::TwoB))
    }

    /// Whether a password fits a stored hash.
    pub async fn password_fits(&self, password: &str, hash: &str) -> Result<bool> {
        if hash.is_empty() {
            return Ok(false);
        }
        let material = material(password, self.cx.config.auth.pepper.expose());
        let hash = hash.to_owned();
        let _turn = self.inner.hashing.acquire().await?;
        let fits = tokio::task::spawn_blocking(move || bcrypt::verify(material, &hash));
        // A hash that bcrypt cannot read fits nothing.
        Ok(fits.await?.unwrap_or(false))
    }

    /// 400 with the policy's code if a new password is too weak for `password_config.policy`.
    pub fn check_new_password(&self, password: &str) -> Result<()> {
        match &self.cx.config.auth.policy {
            Some(policy) => check_policy(policy, password),
            None => Ok(()),
        }
    }
}

/// See [`Accounts::check_new_password`].
pub fn check_policy(policy: &PasswordPolicy, password: &str) -> Result<()> {
    let has = |f: fn(char) -> bool| password.chars().any(f);
    let refuse = |code: &'static str, what: String| Err(Error::client(400, code, what));
    if (password.chars().count() as u64) < policy.minimum_length {
        let what = format!("The password must be at least {} characters long", policy.minimum_length);
        return refuse("M_PASSWORD_TOO_SHORT", what);
    }
    if policy.require_digit && !has(|c| c.is_numeric()) {
        return refuse("M_PASSWORD_NO_DIGIT", "The password must include at least one digit".into());
    }
    if policy.require_symbol && !has(|c| !c.is_ascii_alphanumeric()) {
        return refuse("M_PASSWORD_NO_SYMBOL", "The password must include at least one symbol".into());
    }
    if policy.require_uppercase && !has(|c| c.is_ascii_uppercase()) {
        return refuse("M_PASSWORD_NO_UPPERCASE", "The password must include at least one uppercase letter".into());
    }
    if policy.require_lowercase && !has(|c| c.is_ascii_lowercase()) {
        return refuse("M_PASSWORD_NO_LOWERCASE", "The password must include at least one lowercase letter".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_synapse_are_read() {
        // `hash_password -p hunter2` of Synapse with 4 rounds and pepper "pep".
        let hash = bcrypt::hash_with_salt(material("hunter2", "pep"), 4, [7; 16]).unwrap();
        let text = hash.format_for_version(bcrypt::Version::TwoB);
        assert!(text.starts_with("$2b$04$"));
        assert!(bcrypt::verify(material("hunter2", "pep"), &text).unwrap());
        assert!(!bcrypt::verify(material("hunter2", ""), &text).unwrap());
    }

    #[test]
    fn compatible_characters_are_one() {
        assert_eq!(material("ﬁ", ""), material("fi", ""));
        assert_eq!(material(&"x".repeat(100), "p").len(), 72);
    }

    #[test]
    fn the_policy_names_what_is_missing() {
        let policy = PasswordPolicy { minimum_length: 3, require_digit: true, ..PasswordPolicy::default() };
        assert_eq!(check_policy(&policy, "ab").unwrap_err().errcode(), Some("M_PASSWORD_TOO_SHORT"));
        assert_eq!(check_policy(&policy, "abc").unwrap_err().errcode(), Some("M_PASSWORD_NO_DIGIT"));
        assert!(check_policy(&policy, "abc1").is_ok());
    }
}
