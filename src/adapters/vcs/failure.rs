//! Why a repository did not answer.

use crate::adapters::support::guarded_http::GuardedHttpError;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use std::io;

/// How many characters of a text from outside are kept. Secrets are hidden in it before it is shown.
const MAX_SAID: usize = 4096;
/// How many characters a reason has.
const MAX_SHOWN: usize = 250;

/// Why a repository did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no repository of the kind that was looked for.
    NotThere(String),
    /// The host limits the rate of requests, for so long if it says so.
    RateLimited(Option<TimeDelta>),
    /// Nothing came back in time, or not all of it.
    TimedOut,
    /// Anything else.
    Other(String),
}

impl Failure {
    pub(super) fn other(reason: impl Into<String>) -> Self {
        Self::Other(reason.into())
    }

    /// Says what the other side said, without control characters.
    pub(super) fn said(what: &str, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let shown: String = text
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_SAID)
            .collect();
        Self::Other(format!("{what}: {shown}"))
    }

    /// Returns as much of a reason as is shown.
    pub(super) fn shown(reason: &str) -> String {
        reason.chars().take(MAX_SHOWN).collect()
    }
}

impl From<GuardedHttpError> for Failure {
    fn from(error: GuardedHttpError) -> Self {
        match error {
            GuardedHttpError::Timeout(_) => Self::TimedOut,
            error => Self::Other(error.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof => Self::other("the response ends too early"),
            _ => Self::Other(format!("the response cannot be read: {error}")),
        }
    }
}

/// Returns the time of a `Retry-After`: seconds, or a date in one of the forms of HTTP, or of mail.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(seconds) => Some(TimeDelta::seconds(seconds.into())),
        // A larger one is as good as any that is longer than the longest pause.
        Err(_) if is_number => Some(TimeDelta::seconds(u32::MAX.into())),
        Err(_) => Some(date(text)? - now),
    }
}

fn date(text: &str) -> Option<DateTime<Utc>> {
    let of_http = httpdate::parse_http_date(text).ok().map(DateTime::from);
    of_http.or_else(|| Some(DateTime::parse_from_rfc2822(text).ok()?.to_utc()))
}

/// Returns the failure that the status of a response means, if it means one.
pub(super) fn of_response(
    status: StatusCode,
    headers: &HeaderMap,
    now: DateTime<Utc>,
) -> Option<Failure> {
    if status.is_success() {
        return None;
    }
    let used_up = headers
        .get("x-ratelimit-remaining")
        .is_some_and(|left| left.as_bytes().trim_ascii() == b"0");
    let is_limited = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => used_up || headers.contains_key(RETRY_AFTER),
        StatusCode::SERVICE_UNAVAILABLE => headers.contains_key(RETRY_AFTER),
        _ => false,
    };
    Some(match status {
        _ if is_limited => Failure::RateLimited(retry_after(headers, now)),
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            Failure::NotThere(format!("the server answered {status}"))
        }
        StatusCode::UNAUTHORIZED => Failure::other("the server asks for a login"),
        status => Failure::Other(format!("the server answered {status}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            let name = reqwest::header::HeaderName::from_static(name);
            (name, value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn failure(status: u16, pairs: &[(&'static str, &str)]) -> Option<Failure> {
        let now = DateTime::parse_from_rfc3339("2026-11-26T10:00:00Z").unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        of_response(status, &headers(pairs), now.to_utc())
    }

    #[test]
    fn rate_limits_differ_from_refusals() {
        let seconds = |s| Some(Failure::RateLimited(Some(TimeDelta::seconds(s))));
        let limited = Some(Failure::RateLimited(None));
        assert_eq!(failure(429, &[]), limited);
        assert_eq!(failure(429, &[("retry-after", "30")]), seconds(30));
        let long = seconds(u32::MAX.into());
        assert_eq!(
            failure(429, &[("retry-after", "99999999999999999999999")]),
            long
        );
        for date in [
            "Thu, 26 Nov 2026 10:02:00 GMT",
            "Thursday, 26-Nov-26 10:02:00 GMT",
            "Thu Nov 26 10:02:00 2026",
            "Thu, 26 Nov 2026 11:02:00 +0100",
        ] {
            assert_eq!(
                failure(503, &[("retry-after", date)]),
                seconds(120),
                "{date}"
            );
        }
        assert_eq!(failure(403, &[("retry-after", "5")]), seconds(5));
        assert_eq!(failure(403, &[("x-ratelimit-remaining", "0")]), limited);
        assert_eq!(failure(429, &[("retry-after", "soon")]), limited);
        for (status, pairs) in [
            (403, &[("x-ratelimit-remaining", "7")][..]),
            (403, &[]),
            (503, &[]),
            (500, &[("retry-after", "5")]),
            (401, &[]),
        ] {
            let failure = failure(status, pairs);
            assert!(
                matches!(failure, Some(Failure::Other(_))),
                "{status}: {failure:?}"
            );
        }
        assert!(matches!(failure(404, &[]), Some(Failure::NotThere(_))));
        assert_eq!(failure(200, &[]), None);
    }
}
