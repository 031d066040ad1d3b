//! How a Service's connections are spread over its endpoints, as annotations ask for it. An unknown value is a problem, and the default
//! stays in force.

use std::collections::BTreeMap;

use abi::service::flags;

use crate::maglev;
use crate::reader::Reader;

/// On a Service: `random` (default), `maglev`, `round-robin`, `least-connections`.
pub const ALGORITHM: &str = "beeline.io/algorithm";
/// On a Service: `true` or `false` (default). Implies Maglev: the nodes must agree on the backend of a packet.
pub const DIRECT_SERVER_RETURN: &str = "beeline.io/direct-server-return";
/// On a Service: the number of cells of its Maglev tables, one of [`maglev::SIZES`]. Default: by the number of endpoints.
pub const MAGLEV_SIZE: &str = "beeline.io/maglev-size";
/// On an EndpointSlice: the weight of its endpoints, 1 (default) to [`MAX_WEIGHT`].
pub const WEIGHT: &str = "beeline.io/weight";

/// The largest weight: an endpoint has at most so many slots in a run.
pub const MAX_WEIGHT: u8 = 16;

const ALGORITHMS: [(&str, u32); 4] = [
    ("random", 0),
    ("maglev", flags::MAGLEV),
    ("round-robin", flags::ROUND_ROBIN),
    ("least-connections", flags::LEAST_CONNECTIONS),
];

/// What the annotations of a Service say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balancing {
    /// Bits of `abi::service::flags`.
    pub flags: u32,
    /// Cells of Maglev tables; `None`: by the number of endpoints.
    pub maglev_size: Option<u16>,
}

type Annotations = BTreeMap<String, String>;

impl Balancing {
    /// Reads the annotations of a Service.
    pub fn of(annotations: Option<&Annotations>, reader: &mut Reader<'_>) -> Self {
        let Some(annotations) = annotations else { return Self::default() };
        let algorithm = one_of(annotations, ALGORITHM, &ALGORITHMS, reader).unwrap_or(0);
        let direct = [("true", true), ("false", false)];
        let direct = one_of(annotations, DIRECT_SERVER_RETURN, &direct, reader).unwrap_or(false);
        let sizes = maglev::SIZES.map(|size| (size.to_string(), size));
        let sizes = [0, 1, 2, 3].map(|i| (sizes[i].0.as_str(), sizes[i].1));
        let maglev_size = one_of(annotations, MAGLEV_SIZE, &sizes, reader);
        if !direct {
            return Self { flags: algorithm, maglev_size };
        }
        if algorithm & !flags::MAGLEV != 0 {
            reader.problem(field(ALGORITHM), format!("{DIRECT_SERVER_RETURN} needs maglev, which is used"));
        }
        Self { flags: flags::MAGLEV | flags::DSR, maglev_size }
    }
}

/// The weight of an EndpointSlice's endpoints.
pub fn weight(annotations: Option<&Annotations>, reader: &mut Reader<'_>) -> u8 {
    let Some(text) = annotations.and_then(|annotations| annotations.get(WEIGHT)) else { return 1 };
    match text.parse() {
        Ok(weight @ 1..=MAX_WEIGHT) => weight,
        _ => {
            reader.problem(field(WEIGHT), format!("\"{text}\" is no weight (1-{MAX_WEIGHT}); 1 is used"));
            1
        }
    }
}

fn one_of<T: Copy>(
    annotations: &Annotations,
    name: &str,
    values: &[(&str, T)],
    reader: &mut Reader<'_>,
) -> Option<T> {
    let text = annotations.get(name)?;
    let found = values.iter().find(|(value, _)| value == text).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let known = values.iter().map(|(value, _)| *value).collect::<Vec<_>>().join(", ");
        reader.problem(field(name), format!("\"{text}\" is not one of {known}; the default is used"));
    }
    found
}

fn field(annotation: &str) -> String {
    format!("metadata.annotations[{annotation}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ObjectKey, Problem};

    #[track_caller]
    fn check(annotations: &[(&str, &str)], expected: (u32, Option<u16>, u8), problems: &[&str]) {
        let annotations: Annotations =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (key, mut found) = (ObjectKey::new("ns", "a"), Vec::new());
        let mut reader = Reader::new(&key, &mut found);
        let balancing = Balancing::of(Some(&annotations), &mut reader);
        let weight = weight(Some(&annotations), &mut reader);
        assert_eq!((balancing.flags, balancing.maglev_size, weight), expected);
        assert_eq!(found.iter().map(Problem::to_string).collect::<Vec<_>>(), problems);
    }

    #[test]
    fn each_algorithm_has_its_flag() {
        for (name, flag) in ALGORITHMS {
            check(&[(ALGORITHM, name)], (flag, None, 1), &[]);
        }
        check(&[], (0, None, 1), &[]);
    }

    #[test]
    fn direct_server_return_implies_maglev() {
        let both = flags::MAGLEV | flags::DSR;
        check(&[(DIRECT_SERVER_RETURN, "true"), (MAGLEV_SIZE, "4093")], (both, Some(4093), 1), &[]);
        check(&[(DIRECT_SERVER_RETURN, "false")], (0, None, 1), &[]);
        check(
            &[(DIRECT_SERVER_RETURN, "true"), (ALGORITHM, "round-robin")],
            (both, None, 1),
            &[
                "ns/a: metadata.annotations[beeline.io/algorithm]: beeline.io/direct-server-return needs maglev, which is used",
            ],
        );
    }

    #[test]
    fn unknown_values_are_named_and_the_default_stays() {
        check(
            &[(ALGORITHM, "Maglev"), (DIRECT_SERVER_RETURN, "yes"), (MAGLEV_SIZE, "1000"), (WEIGHT, "17")],
            (0, None, 1),
            &[
                "ns/a: metadata.annotations[beeline.io/algorithm]: \"Maglev\" is not one of random, maglev, round-robin, least-connections; the default is used",
                "ns/a: metadata.annotations[beeline.io/direct-server-return]: \"yes\" is not one of true, false; the default is used",
                "ns/a: metadata.annotations[beeline.io/maglev-size]: \"1000\" is not one of 1021, 4093, 16381, 65521; the default is used",
                "ns/a: metadata.annotations[beeline.io/weight]: \"17\" is no weight (1-16); 1 is used",
            ],
        );
        check(&[(WEIGHT, "16")], (0, None, 16), &[]);
    }
}
