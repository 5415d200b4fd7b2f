//! As much of Rust as a judge of arrows needs: tokens without comments and literals, and the paths they spell.

/// A word, `::`, or one other character, and the line it stands on, from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// A path of two words or more, or one that a `use` or `extern crate` names: `use a::{b, c::*}` is a, a::b, a::c and a::c::*.
#[derive(Debug, PartialEq)]
pub(crate) struct PathUse<'a> {
    pub(crate) words: Vec<&'a str>,
    pub(crate) line: usize,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The tokens of `text`; comments, strings, characters and lifetimes are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut out, mut at, mut line) = (Vec::new(), 0, 1);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let bytes = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            '\'' => quote(rest),
            'r' | 'b' | 'c' if prefixed_string(rest).is_some() => prefixed_string(rest).unwrap_or(1),
            ':' if rest.starts_with("::") => 2,
            _ if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => c.len_utf8(),
        };
        let piece = &rest[..bytes];
        let literal = piece.contains(['"', '\'']) || piece.starts_with("//") || piece.starts_with("/*");
        if !literal && !c.is_whitespace() {
            out.push(Token { text: piece, line });
        }
        line += piece.matches('\n').count();
        at += bytes;
    }
    out
}

/// Bytes of a comment that may hold others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes of a string that begins with its quote; a backslash hides what follows it.
fn string(rest: &str) -> usize {
    let mut hidden = true; // the opening quote closes nothing
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if hidden => hidden = false,
            b'\\' => hidden = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Bytes of `b"…"`, `r"…"`, `br#"…"#` and their kind; None for a word that only begins like one.
fn prefixed_string(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c| !matches!(c, 'r' | 'b' | 'c'))?;
    let hashes = rest[prefix..].find(|c| c != '#')?;
    let body = prefix + hashes;
    if prefix > 2 || !rest[body..].starts_with('"') {
        return None;
    }
    if !rest[..prefix].contains('r') {
        return (hashes == 0).then(|| body + string(&rest[body..]));
    }
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest[body + 1..].find(&end).map_or(rest.len(), |at| body + 1 + at + end.len()))
}

/// Bytes of a character, or of a lifetime.
fn quote(rest: &str) -> usize {
    let mut chars = rest[1..].chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), Some(hidden)) => {
            let body = 2 + hidden.len_utf8();
            rest[body..].find('\'').map_or(rest.len(), |end| body + end + 1)
        }
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 1 + rest[1..].find(|c| !is_word(c)).unwrap_or(rest.len() - 1),
    }
}

/// Words that stand before a path without being its beginning.
const KEYWORDS: &[&str] = &["use", "as", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "where", "while"];

/// The paths that `tokens` spell.
pub(crate) fn paths<'a>(tokens: &[Token<'a>]) -> Vec<PathUse<'a>> {
    let text = |at: usize| tokens.get(at).map_or("", |t| t.text);
    let (mut out, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let root = at - usize::from(at > 0 && text(at - 1) == "::"); // `use ::a` begins like `use a`
        let named = root > 0 && (text(root - 1) == "use" || root > 1 && [text(root - 2), text(root - 1)] == ["extern", "crate"]);
        let starts = text(at).starts_with(is_word) && !KEYWORDS.contains(&text(at)) || named && text(at) == "{";
        at = if starts { path(tokens, at, &[], named, &mut out) } else { at + 1 };
    }
    out
}

/// Reads one path from `at` on, `before` standing before it, and tells where it ends.
fn path<'a>(tokens: &[Token<'a>], mut at: usize, before: &[&'a str], alone: bool, out: &mut Vec<PathUse<'a>>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |t| t.text);
    let mut words = before.to_vec();
    let line = tokens[at].line;
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | "") {
                    let member = text(at).starts_with(is_word) || matches!(text(at), "{" | "*");
                    at = if member { path(tokens, at, &words, true, out) } else { at + 1 };
                    if text(at) == "as" {
                        at += 2;
                    }
                }
                return at + 1;
            }
            // `self` in braces is what stands before them.
            "self" if !words.is_empty() => at += 1,
            "*" => {
                words.push("*");
                at += 1;
            }
            word => {
                words.push(word);
                at += 1;
            }
        }
        let goes_on = text(at) == "::" && (text(at + 1).starts_with(is_word) || matches!(text(at + 1), "{" | "*"));
        if !goes_on {
            break;
        }
        at += 1;
    }
    if alone || words.len() > 1 {
        out.push(PathUse { words, line });
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|t| t.text).collect()
    }

    fn spelled(text: &str) -> Vec<String> {
        paths(&tokens(text)).iter().map(|p| p.words.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(words("a // b\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(words(r####"a "b \" c" d r#"e " f"# g b"h" br##"i"# j"## k"####), ["a", "d", "g", "k"]);
        assert_eq!(words(r"a 'b' '\'' '\u{7f}' 'é' <'life> c"), ["a", "<", ">", "c"]);
        assert_eq!(words("r#type brr break cr"), ["r", "#", "type", "brr", "break", "cr"]);
        assert_eq!(words("\"never closed"), [""; 0]);
        assert_eq!(words("/* never closed"), [""; 0]);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let text = "/* 1\n2 */ a \"3\n\" b\n// 5\nc";
        assert_eq!(tokens(text).iter().map(|t| t.line).collect::<Vec<_>>(), [2, 3, 5]);
    }

    #[test]
    fn a_use_is_every_path_in_it() {
        assert_eq!(spelled("use a::b;"), ["a::b"]);
        assert_eq!(spelled("pub use a::{b, c::{self, d as e}, f::*};"), ["a::b", "a::c", "a::c::d", "a::f::*"]);
        assert_eq!(spelled("use {a, b::c}; use d as e; extern crate f;"), ["a", "b::c", "d", "f"]);
        assert_eq!(spelled("use ::a; use ::{b, c}; use crate::d; return ::e::f;"), ["a", "b", "c", "crate::d", "e::f"]);
    }

    #[test]
    fn a_path_inside_code_counts_and_a_word_does_not() {
        assert_eq!(spelled("fn f(x: a::B<c::D>) -> e { g::<h::I>(); j!() }"), ["a::B", "c::D", "h::I"]);
        assert_eq!(spelled("match x { a::B { c, d } => e::F }"), ["a::B", "e::F"]);
    }
}
