//! One request as it goes out, and its response as a guest sees it. Invariant: what the operator adds replaces what the guest
//! said, and a response that says a secret of the operator's is not handed on.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, Response as HttpResponse,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};
use hyper::body::Bytes;
use memchr::memmem;
use sagahost_manifest::http::{Answer, Failure, Request, Response, Target};
use sagahost_net::{Failed, SentHeader};
use sagahost_saga::outcome::Call;

/// draft-ietf-httpapi-idempotency-key-header
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ATTEMPT: HeaderName = HeaderName::from_static("sagahost-attempt");
/// Of a secret behind its scheme (`Bearer …`): what is shorter may stand anywhere by chance.
const SECRET_BYTES_MIN: usize = 8;

/// As it is sent: the same on every attempt, but for `Sagahost-Attempt`.
pub fn outgoing(
    request: &Request,
    target: &Target,
    key: &str,
    call: &Call,
    headers: &[SentHeader],
) -> HttpRequest<Bytes> {
    let mut outgoing = HttpRequest::new(Bytes::copy_from_slice(&request.body));
    // A method or a header that cannot be one was refused before it was journaled.
    *outgoing.method_mut() = Method::from_bytes(request.method.as_bytes()).unwrap_or(Method::GET);
    *outgoing.uri_mut() = target.uri.clone();
    let all = outgoing.headers_mut();
    for (name, value) in &request.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
            all.append(name, value);
        }
    }
    // What is compressed could say a secret that nobody finds.
    all.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    identify(all, key, call);
    for header in headers {
        header.insert_into(all);
    }
    outgoing
}

/// Which call it is, for whoever is asked: its key, its attempt, and the trace that it belongs to.
pub fn identify(headers: &mut HeaderMap, key: &str, call: &Call) {
    if let Ok(key) = HeaderValue::from_str(key) {
        headers.insert(IDEMPOTENCY_KEY, key);
    }
    headers.insert(ATTEMPT, HeaderValue::from(call.attempt));
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = call.event.attribute(name).and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
}

/// As the guest sees it. `headers`: all that the operator sends for this plugin, wherever.
pub fn answered(came: Result<HttpResponse<Bytes>, Failed>, headers: &[SentHeader], bytes_max: usize) -> Answer {
    let response = came.map_err(|failed| match failed {
        Failed::Unsent { code, what } => Failure { sent: false, code: code.to_owned(), detail: what },
        Failed::Sent { code, what } => Failure { sent: true, code: code.to_owned(), detail: what },
    })?;
    let secrets: Vec<&str> =
        headers.iter().filter(|header| header.is_secret()).map(|header| header.value.reveal()).collect();
    let encoded = response.headers().get_all(CONTENT_ENCODING).iter().any(|how| how != "identity");
    if encoded && !secrets.is_empty() {
        let detail = "its response is compressed, which nobody asked for: whether it says a secret cannot be seen";
        return Err(Failure { sent: true, code: "answer-encoded".to_owned(), detail: detail.to_owned() });
    }
    let (head, body) = response.into_parts();
    if secrets
        .iter()
        .any(|secret| says(secret, &body) || head.headers.values().any(|value| says(secret, value.as_bytes())))
    {
        let detail = "its response says a secret that the operator sends with the request: it is not handed on";
        return Err(Failure { sent: true, code: "secret-echoed".to_owned(), detail: detail.to_owned() });
    }
    let text = |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    let response = Response {
        status: head.status.as_u16(),
        headers: head.headers.iter().filter(|(name, _)| !is_of_the_connection(name)).filter_map(text).collect(),
        body: body.into(),
    };
    if response.bytes() > bytes_max {
        let detail = format!("its response has more than {bytes_max} bytes, with its headers (response-bytes-max)");
        return Err(Failure { sent: true, code: "answer-too-long".to_owned(), detail });
    }
    Ok(response)
}

/// For people.
pub fn said(request: &Request, answer: &Answer) -> String {
    match answer {
        Ok(response) => format!("{}: {}", request.shown(), response.status),
        Err(Failure { code, detail, .. }) => format!("{}: {code}: {detail}", request.shown()),
    }
}

/// The whole value, or what stands behind its scheme.
fn says(secret: &str, bytes: &[u8]) -> bool {
    let behind =
        secret.split_once(' ').map(|(_, behind)| behind.trim()).filter(|behind| behind.len() >= SECRET_BYTES_MIN);
    let found = |text: &str| !text.is_empty() && memmem::find(bytes, text.as_bytes()).is_some();
    found(secret) || behind.is_some_and(found)
}

fn is_of_the_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use sagahost_net::Secret;

    use super::*;

    fn header(name: &'static str, value: &str, shown: &str) -> SentHeader {
        SentHeader { name: HeaderName::from_static(name), value: Secret::new(value), shown: shown.into() }
    }

    fn response(body: &str, header: &str) -> Result<HttpResponse<Bytes>, Failed> {
        Ok(HttpResponse::builder().status(200).header("x-seen", header).body(Bytes::from(body.to_owned())).unwrap())
    }

    fn code(answer: Answer) -> String {
        answer
            .map_or_else(|failure| format!("{} {}", failure.code, failure.sent), |response| response.status.to_string())
    }

    #[test]
    fn a_response_that_says_a_secret_is_not_handed_on() {
        let bearer = [header("authorization", "Bearer s3cret-of-the-shop", "(env TOKEN)")];
        assert_eq!(code(answered(response("fine", ""), &bearer, 1000)), "200");
        assert_eq!(
            code(answered(response("you said Bearer s3cret-of-the-shop", ""), &bearer, 1000)),
            "secret-echoed true"
        );
        assert_eq!(
            code(answered(response("{\"token\":\"s3cret-of-the-shop\"}", ""), &bearer, 1000)),
            "secret-echoed true"
        );
        assert_eq!(code(answered(response("", "s3cret-of-the-shop"), &bearer, 1000)), "secret-echoed true");
        let open = [header("user-agent", "sagahost", "sagahost")];
        assert_eq!(code(answered(response("hello sagahost", ""), &open, 1000)), "200", "it is no secret");
        let zipped = HttpResponse::builder().header("content-encoding", "gzip").body(Bytes::new()).unwrap();
        assert_eq!(code(answered(Ok(zipped.clone()), &bearer, 1000)), "answer-encoded true");
        assert_eq!(code(answered(Ok(zipped), &open, 1000)), "200");
    }
}
