//! Label and field selectors: which objects a LIST, WATCH, service or controller means.
//!
//! Parsing follows upstream's grammar and error texts (apimachinery `labels`, `fields`). A selector knows nothing of where labels and
//! fields come from: matching takes a look-up.

mod field;
mod label_grammar;

use serde_json::Value;

use crate::kinds::names;
use crate::status::{ApiError, FieldError, quote};
pub use field::{FieldSelector, FieldTerm};

/// How a requirement relates a label to its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`; holds for objects without the label
    NotIn,
    /// `key=a`
    Equals,
    /// `key==a`
    DoubleEquals,
    /// `key!=a`; holds for objects without the label
    NotEquals,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`, whole numbers
    GreaterThan,
    /// `key<1`, whole numbers
    LessThan,
}

impl Operator {
    fn symbol(self) -> &'static str {
        match self {
            Self::In => " in ",
            Self::NotIn => " notin ",
            Self::Equals => "=",
            Self::DoubleEquals => "==",
            Self::NotEquals => "!=",
            Self::GreaterThan => ">",
            Self::LessThan => "<",
            Self::Exists | Self::DoesNotExist => "",
        }
    }
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// Checks key, values and their number.
    ///
    /// # Errors
    /// The first field that is wrong, in upstream's words.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        mut values: Vec<String>,
    ) -> Result<Self, Box<FieldError>> {
        let key = key.into();
        let wrong = names::qualified_name(&key);
        if !wrong.is_empty() {
            return Err(Box::new(FieldError::invalid("key", key, wrong.join("; "))));
        }
        let count = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(why) = count {
            return Err(Box::new(FieldError::invalid("values", values, why)));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                return Err(Box::new(FieldError::invalid(format!("values[{i}]"), value.as_str(), why)));
            }
            let wrong = names::label_value(value);
            if !wrong.is_empty() {
                return Err(Box::new(FieldError::invalid(
                    format!("values[{i}][{key}]"),
                    value.as_str(),
                    wrong.join("; "),
                )));
            }
        }
        values.sort();
        values.dedup();
        Ok(Self { key, operator, values })
    }

    /// The label's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How key and values relate.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, sorted.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// The requirement holds for an object whose label `key` has `value`, or for one without that label.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|w| w == v);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compares(value, |label, bound| label > bound),
            Operator::LessThan => self.compares(value, |label, bound| label < bound),
        }
    }

    fn compares(&self, value: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let label = value.and_then(|v| v.parse().ok());
        let bound = self.values.first().and_then(|v| v.parse().ok());
        matches!((label, bound), (Some(label), Some(bound)) if holds(label, bound))
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.operator {
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::In | Operator::NotIn => {
                write!(f, "{}{}({})", self.key, self.operator.symbol(), self.values.join(","))
            }
            _ => write!(f, "{}{}{}", self.key, self.operator.symbol(), self.values.join(",")),
        }
    }
}

/// A conjunction of requirements on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    #[must_use]
    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Selects no object: an absent `LabelSelector`.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Selects what meets all of `requirements`.
    #[must_use]
    pub fn all_of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Reads the text form, `app=web,tier in (a,b),!old`. The empty text selects everything.
    ///
    /// # Errors
    /// 400 with upstream's message.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        label_grammar::parse(text).map(Self::all_of).map_err(ApiError::bad_request)
    }

    /// Reads a `metav1.LabelSelector` object. `None` and null select nothing, `{}` everything.
    ///
    /// # Errors
    /// The first field that is wrong, with paths below the selector (`matchExpressions[0].operator`).
    pub fn from_object(selector: Option<&Value>) -> Result<Self, Box<FieldError>> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for (i, expression) in
            selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            requirements.push(requirement_of(expression).map_err(|mut e| {
                e.path = format!("matchExpressions[{i}].{}", e.path);
                e
            })?);
        }
        Ok(Self::all_of(requirements))
    }

    /// A selector of exactly the labels of a plain map, as `Service.spec.selector` is. Values are taken as they are.
    #[must_use]
    pub fn from_map(labels: &serde_json::Map<String, Value>) -> Self {
        let exact = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        Self::all_of(labels.iter().map(exact).collect())
    }

    /// The conditions, sorted by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Selects every object.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Selects an object, given a look-up of its labels.
    #[must_use]
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    /// Selects an object with these `metadata.labels`.
    #[must_use]
    pub fn matches_map(&self, labels: Option<&Value>) -> bool {
        self.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }

    /// The one value that the label must have, if the selector demands exactly one.
    #[must_use]
    pub fn exact(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements.iter().find(|r| r.key == key)?;
        let exact = matches!(requirement.operator, Operator::Equals | Operator::DoubleEquals | Operator::In);
        match &requirement.values[..] {
            [value] if exact => Some(value),
            _ => None,
        }
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

fn requirement_of(expression: &Value) -> Result<Requirement, Box<FieldError>> {
    let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            let why = format!("{} is not a valid label selector operator", quote(other));
            return Err(Box::new(FieldError::invalid("operator", other, why)));
        }
    };
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    Requirement::new(text("key"), operator, values.filter_map(Value::as_str).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests;
