//! How a command ends when it does not succeed: one line for a person, one number for a program.

use roxanne::rebuild::RebuildError;
use roxanne_builder::{BuildError, backend::BackendError};
use roxanne_core::ErrorClass;
use roxanne_core::dataset::DatasetError;
use roxanne_core::format::FormatError;
use roxanne_core::recall::TruthError;
use roxanne_engine::{OpenError, SearchError, collection::CollectionError};
use std::{fmt::Display, io, path::Path};

/// What went wrong, and the exit code that tells.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// An error of `class`, in words that say what to do next.
    pub(crate) fn new(class: ErrorClass, text: impl Display) -> Failure {
        let code = match class {
            ErrorClass::Usage => 2,
            ErrorClass::BadInput => 3,
            ErrorClass::Budget => 4,
            ErrorClass::Gate => 5,
            ErrorClass::Corrupt => 6,
            ErrorClass::Busy => 7,
            ErrorClass::Device => 8,
            ErrorClass::Interrupted => 130,
        };
        Failure { code, text: text.to_string() }
    }

    /// Called wrongly, in a way that clap could not see.
    pub(crate) fn usage(text: impl Display) -> Failure {
        Failure::new(ErrorClass::Usage, text)
    }

    /// Input that cannot be used.
    pub(crate) fn input(text: impl Display) -> Failure {
        Failure::new(ErrorClass::BadInput, text)
    }

    /// The operating system refused something about `path`; `doing` is a verb.
    pub(crate) fn io(path: &Path, doing: &str) -> impl FnOnce(io::Error) -> Failure {
        let text = format!("{}: cannot {doing}", path.display());
        move |error| Failure::new(ErrorClass::of_io(&error), format!("{text}: {error}"))
    }

    /// The same failure, with the place where it happened before it.
    pub(crate) fn at(self, place: impl Display) -> Failure {
        Failure { text: format!("{place}: {}", self.text), ..self }
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// One line, whatever the error said.
    pub(crate) fn line(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Of stdout alone: every other error of the operating system knows its path. A reader that has gone away is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { code: 0, text: String::new() },
            _ => Failure::new(ErrorClass::of_io(&error), format!("cannot write to stdout: {error}")),
        }
    }
}

impl From<CollectionError> for Failure {
    fn from(error: CollectionError) -> Failure {
        Failure::new(error.class(), error)
    }
}

impl From<RebuildError> for Failure {
    fn from(error: RebuildError) -> Failure {
        Failure::new(error.class(), error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        Failure::new(error.class(), error)
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Failure {
        BuildError::Backend(error).into()
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        Failure::new(error.class(), error)
    }
}

impl From<SearchError> for Failure {
    fn from(error: SearchError) -> Failure {
        Failure::new(error.class(), error)
    }
}

impl From<DatasetError> for Failure {
    fn from(error: DatasetError) -> Failure {
        Failure::new(dataset_class(&error), error)
    }
}

impl From<TruthError> for Failure {
    fn from(error: TruthError) -> Failure {
        let class = match &error {
            TruthError::Dataset(error) => dataset_class(error),
            TruthError::NoNeighbors => ErrorClass::Usage,
            _ => ErrorClass::BadInput,
        };
        Failure::new(class, error)
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Failure {
        Failure::new(error.class(), error)
    }
}

fn dataset_class(error: &DatasetError) -> ErrorClass {
    match error {
        DatasetError::Io { source, .. } => ErrorClass::of_io(source),
        _ => ErrorClass::BadInput,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::input("two\n  lines").at("query 3").line(), "query 3: two lines");
        assert_eq!((Failure::usage("x").code(), Failure::new(ErrorClass::Interrupted, "x").code()), (2, 130));
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_failure() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code(), 0);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code(), 7);
    }
}
