//! A scan of a text before the library parses it. The scan limits the nesting, which the library
//! follows without limit until the stack overflows, and blanks out fields that are not in the
//! schema, which the library rejects.

use prost_reflect::{Kind, MessageDescriptor};

/// The deepest nesting of messages that is accepted.
const MAX_DEPTH: usize = 32;

/// A text that has only fields of the schema.
pub(super) struct Known {
    /// The text; positions in it are the same as in the original.
    pub(super) text: String,
    /// The fields that were blanked out, without those that other services read.
    pub(super) unknown: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Text,
    Sign(char),
}

/// A token with the bytes where it starts and ends.
type Located<'a> = (Token<'a>, usize, usize);

fn word(c: char) -> bool {
    c.is_alphanumeric() || "_-+.".contains(c)
}

fn tokens(text: &str) -> Result<Vec<Located<'_>>, String> {
    let (mut tokens, mut at) = (vec![], 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(first) = rest.chars().next() else {
            break;
        };
        let length = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => text_length(rest, first)
                .ok_or_else(|| format!("text that starts at byte {at} does not end"))?,
            c if word(c) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let end = at + length;
        match first {
            '#' => {}
            '"' | '\'' => tokens.push((Token::Text, at, end)),
            c if word(c) => {
                tokens.push((Token::Word(rest.get(..length).unwrap_or_default()), at, end));
            }
            c if c.is_whitespace() => {}
            c => tokens.push((Token::Sign(c), at, end)),
        }
        at = end;
    }
    Ok(tokens)
}

/// Returns the length of a quoted text, quotes included; none when it does not end.
fn text_length(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return None,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

struct Scanner<'a> {
    tokens: Vec<Located<'a>>,
    at: usize,
    /// Unknown fields that are no reason for a warning.
    others: &'a [&'a str],
    /// The byte ranges to blank out.
    out: Vec<(usize, usize)>,
    unknown: Vec<String>,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|(token, ..)| *token)
    }

    fn next(&mut self) -> Option<Located<'a>> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token
    }

    /// Scans the fields of a message, up to its end.
    fn message(&mut self, schema: Option<&MessageDescriptor>, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("messages nest deeper than {MAX_DEPTH}"));
        }
        loop {
            match self.peek() {
                None if depth == 0 => return Ok(()),
                None => return Err("a message does not end".into()),
                Some(Token::Sign('}' | '>')) if depth > 0 => return Ok(()),
                Some(Token::Sign(',' | ';')) => self.separator(),
                Some(_) => self.field(schema, depth)?,
            }
        }
    }

    /// Blanks out a separator. It means nothing, and without its field the library would reject it.
    fn separator(&mut self) {
        if let Some((_, start, end)) = self.next() {
            self.out.push((start, end));
        }
    }

    fn field(&mut self, schema: Option<&MessageDescriptor>, depth: usize) -> Result<(), String> {
        let Some((token, start, mut end)) = self.next() else {
            return Ok(());
        };
        let Token::Word(name) = token else {
            return Err(format!("a field's name was expected at byte {start}"));
        };
        let field = schema.and_then(|schema| schema.get_field_by_name(name));
        let message = field.as_ref().and_then(|field| match field.kind() {
            Kind::Message(message) => Some(message),
            _ => None,
        });
        if self.peek() == Some(Token::Sign(':')) {
            self.at += 1;
        }
        self.value(message.as_ref(), depth, &mut end)?;
        if schema.is_some() && field.is_none() {
            self.out.push((start, end));
            if !self.others.contains(&name) {
                self.unknown.push(name.to_owned());
            }
        }
        Ok(())
    }

    fn value(
        &mut self,
        message: Option<&MessageDescriptor>,
        depth: usize,
        end: &mut usize,
    ) -> Result<(), String> {
        let Some((token, _, after)) = self.next() else {
            return Err("a value is missing at the end".into());
        };
        *end = after;
        match token {
            Token::Sign('{' | '<') => {
                self.message(message, depth + 1)?;
                *end = self.next().map_or(after, |(_, _, end)| end);
            }
            Token::Sign('[') => {
                if depth + 1 > MAX_DEPTH {
                    return Err(format!("messages nest deeper than {MAX_DEPTH}"));
                }
                while !matches!(self.peek(), None | Some(Token::Sign(']'))) {
                    if self.peek() == Some(Token::Sign(',')) {
                        self.at += 1;
                    } else {
                        self.value(message, depth + 1, end)?;
                    }
                }
                *end = self.next().ok_or("a list does not end")?.2;
            }
            // Adjacent string literals make one value.
            Token::Text => {
                while self.peek() == Some(Token::Text) {
                    *end = self.next().map_or(*end, |(_, _, end)| end);
                }
            }
            Token::Word(_) => {}
            Token::Sign(sign) => {
                return Err(format!(
                    "a value was expected before {sign:?} at byte {after}"
                ));
            }
        }
        Ok(())
    }
}

/// Blanks out the fields that `schema` does not have.
pub(super) fn known_fields(
    text: &str,
    schema: &MessageDescriptor,
    others: &[&str],
) -> Result<Known, String> {
    let mut scanner = Scanner {
        tokens: tokens(text)?,
        at: 0,
        others,
        out: vec![],
        unknown: vec![],
    };
    scanner.message(Some(schema), 0)?;
    let mut known = text.as_bytes().to_vec();
    for (from, to) in scanner.out {
        // Blanks instead of nothing, so that the library's errors name the right line and column.
        known
            .iter_mut()
            .take(to)
            .skip(from)
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
    }
    let text = String::from_utf8(known).map_err(|e| e.to_string())?;
    Ok(Known {
        text,
        unknown: scanner.unknown,
    })
}
