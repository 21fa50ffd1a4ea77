//! W3C Trace Context: how one program tells another of which trace a request is a part
//! (<https://www.w3.org/TR/trace-context-2/>).

use crate::serving::TraceContext;

/// The header in which a request names the span that it is a part of.
pub const TRACEPARENT: &str = "traceparent";
/// The header in which its answer names the request's own span.
pub const TRACERESPONSE: &str = "traceresponse";

/// Where versions that are not known yet may go on.
const LENGTH: usize = 55;
/// The flag of a trace that somebody has chosen to be told.
const SAMPLED: u8 = 1;

/// A span of the trace and below the span that `traceparent` names; none if it names none.
pub(super) fn below(traceparent: &str) -> Option<TraceContext> {
    let (known, rest) = traceparent.split_at_checked(LENGTH)?;
    let mut parts = known.split('-');
    let mut part = |length| {
        let part = parts.next().filter(|part| part.len() == length)?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        part.bytes().all(is_hex).then_some(part)
    };
    let version = part(2)?;
    let trace = u128::from_str_radix(part(32)?, 16).ok()?;
    let span = u64::from_str_radix(part(16)?, 16).ok()?;
    let flags = u8::from_str_radix(part(2)?, 16).ok()?;
    let may_go_on = version != "00" && rest.starts_with('-');
    let is_sound = version != "ff" && trace != 0 && span != 0 && (rest.is_empty() || may_go_on);
    let parent = TraceContext {
        trace,
        span,
        parent: 0,
        sampled: flags & SAMPLED != 0,
    };
    is_sound.then(|| parent.child())
}

/// The value of `traceresponse`.
pub(super) fn response(context: &TraceContext) -> String {
    let flags = if context.sampled { SAMPLED } else { 0 };
    format!(
        "00-{:032x}-{:016x}-{flags:02x}",
        context.trace, context.span
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_parent_is_read_and_the_answer_names_the_child() {
        let context = below(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.parent, 0x00f0_67aa_0ba9_02b7);
        assert!(context.sampled);
        assert_ne!(context.span, context.parent);
        let told = response(&context);
        assert_eq!(told, format!("00-{TRACE}-{:016x}-01", context.span));
        let not_chosen = below(&format!("00-{TRACE}-{SPAN}-00")).unwrap();
        assert!(!not_chosen.sampled);
        assert!(response(&not_chosen).ends_with("-00"));
        // What later versions add is passed over, as are flags that are not known.
        let later = below(&format!("cc-{TRACE}-{SPAN}-03-more")).unwrap();
        assert!(later.sampled);
    }

    #[test]
    fn what_is_no_parent_is_none() {
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01more"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}{SPAN}-01---"),
            format!("00-{}-{SPAN}-01", "é".repeat(16)),
        ] {
            assert_eq!(below(&wrong), None, "{wrong}");
        }
    }
}
