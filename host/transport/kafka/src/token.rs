//! Tokens for OAUTHBEARER: read from a file that is kept fresh, or unsecured ones for trials. Invariant: a
//! token goes to librdkafka and nowhere else.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::client::OAuthToken;
use serde_json::{Value, json};

/// Where tokens come from, each time that librdkafka asks: at 80 % of a token's life.
#[derive(Debug)]
pub(super) struct TokenSource {
    pub file: Option<PathBuf>,
    pub unsecured: bool,
}

impl TokenSource {
    /// `config` is the property `sasl.oauthbearer.config`: `principal=NAME lifeSeconds=N scope=…`.
    pub fn token(&self, config: Option<&str>) -> Result<OAuthToken, String> {
        if let Some(file) = &self.file {
            return from_file(file);
        }
        if self.unsecured {
            return unsecured(config.unwrap_or_default());
        }
        Err("OAUTHBEARER needs sasl.oauthbearer.token.location = \"FILE\" in [kafka.properties]: a file with a JWT that \
             is kept fresh"
            .to_owned())
    }
}

fn from_file(file: &Path) -> Result<OAuthToken, String> {
    let token = fs::read_to_string(file).map_err(|error| format!("failed to read {}: {error}", file.display()))?;
    let token = token.trim().to_owned();
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let claims: Value = claims
        .and_then(|claims| serde_json::from_slice(&claims).ok())
        .ok_or_else(|| format!("{} does not hold a JWT", file.display()))?;
    let principal = claims["sub"].as_str().unwrap_or_default().to_owned();
    let expiry_s = claims["exp"].as_f64().ok_or_else(|| format!("the JWT in {} has no expiry", file.display()))?;
    #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970 in a double are exact")]
    Ok(OAuthToken { token, principal_name: principal, lifetime_ms: (expiry_s * 1000.0) as i64 })
}

fn unsecured(config: &str) -> Result<OAuthToken, String> {
    let find = |name: &str| config.split_whitespace().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let principal = find("principal").ok_or("sasl.oauthbearer.config has no principal=NAME")?.to_owned();
    let life_s: u64 = find("lifeSeconds").map_or(Ok(3_600), str::parse).map_err(|_| "lifeSeconds is not a number")?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut claims = json!({ "sub": principal, "iat": now_s, "exp": now_s + life_s });
    if let Some(scope) = find("scope") {
        claims["scope"] = scope.split(',').collect();
    }
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let token = format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(&claims));
    let lifetime_ms = i64::try_from((now_s + life_s) * 1_000).map_err(|_| "lifeSeconds is too large")?;
    Ok(OAuthToken { token, principal_name: principal, lifetime_ms })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails says where")]

    use super::*;

    #[test]
    fn an_unsecured_token_reads_back_from_a_file() {
        let source = TokenSource { file: None, unsecured: true };
        let made = source.token(Some("principal=shop lifeSeconds=60")).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{}\n", made.token)).unwrap();
        let read = TokenSource { file: Some(file.path().to_owned()), unsecured: false }.token(None).unwrap();
        assert_eq!((read.token, read.principal_name, read.lifetime_ms), (made.token, "shop".into(), made.lifetime_ms));
    }

    #[test]
    fn what_is_missing_is_said() {
        let none = TokenSource { file: None, unsecured: false };
        assert!(none.token(None).err().unwrap().contains("token.location"));
        let unsecured = TokenSource { file: None, unsecured: true };
        assert!(unsecured.token(Some("lifeSeconds=5")).err().unwrap().contains("principal"));
        let gone = TokenSource { file: Some("/no/such/file".into()), unsecured: false };
        assert!(gone.token(None).err().unwrap().contains("/no/such/file"));
    }
}
