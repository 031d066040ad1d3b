//! The text form of label selectors: a lexer and a recursive descent parser with upstream's error texts.

use super::{Operator, Requirement};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Identifier,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
    End,
    Error,
}

const SYMBOLS: [(&str, Token); 9] = [
    (")", Token::Close),
    (",", Token::Comma),
    ("!", Token::Not),
    ("==", Token::DoubleEquals),
    ("=", Token::Equals),
    (">", Token::Greater),
    ("<", Token::Less),
    ("!=", Token::NotEquals),
    ("(", Token::Open),
];

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Cuts a text into tokens; the last is always `End`.
fn tokens(text: &str) -> Vec<(Token, String)> {
    let mut out = Vec::new();
    let mut rest = text.trim_start_matches(is_blank);
    while let Some(first) = rest.chars().next() {
        let (token, length, literal) = if is_symbol(first) { symbol(rest) } else { word(rest) };
        out.push((token, literal));
        rest = rest[length..].trim_start_matches(is_blank);
    }
    out.push((Token::End, String::new()));
    out
}

fn word(rest: &str) -> (Token, usize, String) {
    let length = rest.find(|c| is_symbol(c) || is_blank(c)).unwrap_or(rest.len());
    let literal = &rest[..length];
    let token = match literal {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, length, literal.to_owned())
}

/// The longest symbol at the start of `rest`.
fn symbol(rest: &str) -> (Token, usize, String) {
    let found = SYMBOLS.iter().filter(|(s, _)| rest.starts_with(s)).max_by_key(|(s, _)| s.len());
    match found {
        Some((literal, token)) => (*token, literal.len(), (*literal).to_owned()),
        None => (Token::Error, 1, format!("error expected: keyword found '{}'", &rest[..1])),
    }
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

/// Reads a whole selector.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek_value() {
            (Token::Identifier | Token::Not, _) => {
                requirements
                    .push(parser.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
                match parser.next_value() {
                    (Token::End, _) => return Ok(requirements),
                    (Token::Comma, _) => match parser.peek_value() {
                        (Token::Identifier | Token::Not, _) => {}
                        (_, found) => return Err(format!("found '{found}', expected: identifier after ','")),
                    },
                    (_, found) => return Err(format!("found '{found}', expected: ',' or 'end of string'")),
                }
            }
            (Token::End, _) => return Ok(requirements),
            (_, found) => {
                return Err(format!("found '{found}', expected: !, identifier, or 'end of string'"));
            }
        }
    }
}

impl Parser {
    fn peek(&self) -> (Token, &str) {
        let (token, literal) = &self.tokens[self.at.min(self.tokens.len() - 1)];
        (*token, literal)
    }

    fn next(&mut self) -> (Token, String) {
        let (token, literal) = self.peek();
        let item = (token, literal.to_owned());
        self.at += 1;
        item
    }

    /// Where a value may stand, `in` and `notin` are ordinary words.
    fn as_value(token: Token) -> Token {
        if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token }
    }

    fn peek_value(&self) -> (Token, &str) {
        let (token, literal) = self.peek();
        (Self::as_value(token), literal)
    }

    fn next_value(&mut self) -> (Token, String) {
        let (token, literal) = self.next();
        (Self::as_value(token), literal)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next_value();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next_value();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let wrong = crate::kinds::names::qualified_name(&key);
        if !wrong.is_empty() {
            return Err(crate::FieldError::invalid("<nil>", key, wrong.join("; ")).to_string());
        }
        let ends = matches!(self.peek_value().0, Token::End | Token::Comma);
        if negated || ends {
            let operator = if negated { Operator::DoesNotExist } else { Operator::Exists };
            return Requirement::new(key, operator, Vec::new()).map_err(|e| e.to_string());
        }
        let operator = self.operator()?;
        let values = if matches!(operator, Operator::In | Operator::NotIn) {
            self.value_set()?
        } else {
            vec![self.exact_value()?]
        };
        Requirement::new(key, operator, values).map_err(|e| e.to_string())
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let (token, found) = self.next();
        Ok(match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek_value().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next_value() {
            (Token::Identifier, value) => Ok(value),
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }

    fn value_set(&mut self) -> Result<Vec<String>, String> {
        let (token, found) = self.next_value();
        if token != Token::Open {
            return Err(format!("found '{found}' expected: '('"));
        }
        match self.peek_value() {
            (Token::Close, _) => {
                self.at += 1;
                Ok(vec![String::new()])
            }
            (Token::Identifier | Token::Comma, _) => self.values(),
            (_, found) => Err(format!("found '{found}', expected: ',', ')' or identifier")),
        }
    }

    /// The inside of `(a,,b)`, where nothing between commas is the empty value, up to and with the `)`.
    fn values(&mut self) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        let mut expect_value = true;
        loop {
            match self.next_value() {
                (Token::Identifier, value) if expect_value => {
                    values.push(value);
                    expect_value = false;
                }
                (Token::Identifier, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
                (token @ (Token::Comma | Token::Close), _) => {
                    if expect_value {
                        values.push(String::new());
                    }
                    if token == Token::Close {
                        return Ok(values);
                    }
                    expect_value = true;
                }
                (_, found) if expect_value => {
                    return Err(format!("found '{found}', expected: ',', or identifier"));
                }
                (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
            }
        }
    }
}
