//! A small reader of PromQL: which metrics an expression selects, and which labels it needs.
//!
//! It knows the expressions of `ops`, and panics at what it does not know, so that nothing passes
//! unread. Deliberately absent: the syntax as a whole, which `promtool` checks.

/// A metric that an expression selects.
#[derive(Debug, PartialEq)]
pub(super) struct Selected {
    pub(super) name: String,
    pub(super) matchers: Vec<Matcher>,
    /// The labels of each `by (…)` around it, the outermost first.
    pub(super) groups: Vec<Vec<String>>,
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matcher {
    pub(super) label: String,
    pub(super) operator: String,
    pub(super) value: String,
}

/// What an expression needs.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Needs {
    pub(super) selected: Vec<Selected>,
    /// The labels by which two sides are joined: `on (…)`.
    pub(super) joined_on: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Number,
    Sign(String),
}

fn tokens(expression: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let end = rest[1..].find('"').expect("a text ends") + 1;
                found.push(Token::Text(rest[1..end].to_owned()));
                end + 1
            }
            // A range, such as `[5m]`.
            '[' => rest.find(']').expect("a range ends") + 1,
            '0'..='9' => {
                found.push(Token::Number);
                span(rest, |c| c.is_alphanumeric() || c == '.')
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = span(rest, |c| c.is_alphanumeric() || c == '_' || c == ':');
                found.push(Token::Word(rest[..end].to_owned()));
                end
            }
            '=' | '!' | '<' | '>' => {
                let end = span(rest, |c| "=!<>~".contains(c));
                found.push(Token::Sign(rest[..end].to_owned()));
                end
            }
            '(' | ')' | '{' | '}' | ',' | '+' | '-' | '*' | '/' => {
                found.push(Token::Sign(first.to_string()));
                1
            }
            other => panic!("{other} in {expression}"),
        };
        rest = rest[length..].trim_start();
    }
    found
}

fn span(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

struct Reader<'a> {
    expression: &'a str,
    tokens: Vec<Token>,
    at: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn is_at(&self, sign: &str) -> bool {
        self.tokens.get(self.at) == Some(&Token::Sign(sign.to_owned()))
    }

    fn sign(&mut self, sign: &str) {
        assert!(self.is_at(sign), "no {sign} in {}", self.expression);
        self.at += 1;
    }

    /// The labels in parentheses.
    fn labels(&mut self) -> Vec<String> {
        self.sign("(");
        let mut labels = Vec::new();
        loop {
            match self.next() {
                Some(Token::Word(label)) => labels.push(label),
                Some(Token::Sign(sign)) if sign == "," => {}
                Some(Token::Sign(sign)) if sign == ")" => return labels,
                other => panic!("{other:?} among labels in {}", self.expression),
            }
        }
    }

    /// The conditions in braces, if any.
    fn matchers(&mut self) -> Vec<Matcher> {
        let mut matchers = Vec::new();
        if !self.is_at("{") {
            return matchers;
        }
        self.at += 1;
        loop {
            match self.next() {
                Some(Token::Word(label)) => {
                    let (operator, value) = (self.next(), self.next());
                    let (Some(Token::Sign(operator)), Some(Token::Text(value))) = (operator, value)
                    else {
                        panic!("a strange condition in {}", self.expression);
                    };
                    matchers.push(Matcher {
                        label,
                        operator,
                        value,
                    });
                }
                Some(Token::Sign(sign)) if sign == "," => {}
                Some(Token::Sign(sign)) if sign == "}" => return matchers,
                other => panic!("{other:?} among conditions in {}", self.expression),
            }
        }
    }
}

/// What this expression needs.
pub(super) fn needs(expression: &str) -> Needs {
    let mut reader = Reader {
        expression,
        tokens: tokens(expression),
        at: 0,
    };
    let mut needs = Needs::default();
    // One entry for each open parenthesis: the labels of its `by (…)`, if it has one.
    let mut open: Vec<Option<Vec<String>>> = Vec::new();
    let mut by = None;
    while let Some(token) = reader.next() {
        match token {
            Token::Word(word) => match word.as_str() {
                "by" => by = Some(reader.labels()),
                "on" => needs.joined_on.extend(reader.labels()),
                "and" | "or" | "unless" | "offset" => {}
                "without" | "ignoring" | "group_left" | "group_right" | "bool" => {
                    panic!("this reader does not know {word} in {expression}")
                }
                "sum" | "max" | "min" | "avg" | "count" | "topk" => {}
                _ if reader.is_at("(") => {}
                _ => {
                    let matchers = reader.matchers();
                    needs.selected.push(Selected {
                        name: word,
                        matchers,
                        groups: open.iter().flatten().cloned().collect(),
                    });
                }
            },
            Token::Sign(sign) if sign == "(" => open.push(by.take()),
            Token::Sign(sign) if sign == ")" => {
                assert!(open.pop().is_some(), "a ) too many in {expression}");
            }
            Token::Sign(_) | Token::Number | Token::Text(_) => {}
        }
        let is_behind = by.is_none() || reader.is_at("(");
        assert!(is_behind, "by (…) stands before its operand: {expression}");
    }
    assert!(open.is_empty(), "a ( too many in {expression}");
    needs
}

#[test]
fn an_expression_is_read_with_its_conditions_and_groups() {
    let read = needs(
        r#"sum by (job) (max by (job, part) (a:b{x=~"1|2", y!="3"})) > on (job) 0.5 * rate(c[5m])"#,
    );
    let matcher = |label: &str, operator: &str, value: &str| Matcher {
        label: label.to_owned(),
        operator: operator.to_owned(),
        value: value.to_owned(),
    };
    let group = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let expected = Needs {
        selected: vec![
            Selected {
                name: "a:b".to_owned(),
                matchers: vec![matcher("x", "=~", "1|2"), matcher("y", "!=", "3")],
                groups: vec![group(&["job"]), group(&["job", "part"])],
            },
            Selected {
                name: "c".to_owned(),
                matchers: Vec::new(),
                groups: Vec::new(),
            },
        ],
        joined_on: group(&["job"]),
    };
    assert_eq!(read, expected);
}
