//! What a cmdlet is: its parameters, parameter sets and examples, as data.

/// A cmdlet.
#[derive(Debug)]
pub struct Cmdlet {
    /// Its name, as the reference writes it.
    pub name: &'static str,
    /// One sentence.
    pub synopsis: &'static str,
    /// What it does here, where that is more or other than in the reference.
    pub here: &'static str,
    /// The plain command that does the same.
    pub plain: &'static str,
    /// Names of the parameter sets; without any, all parameters go together.
    pub sets: &'static [&'static str],
    /// Its own parameters; `-Confirm` and `-WhatIf` are added where `changes` says so.
    pub parameters: &'static [Parameter],
    /// Whether it changes something, and so takes `-Confirm` and `-WhatIf`.
    pub changes: bool,
    /// Properties of what it shows; empty when it shows nothing.
    pub shows: &'static [&'static str],
    /// Examples: what is typed, and what that does.
    pub examples: &'static [(&'static str, &'static str)],
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name without the dash.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The parameter sets that it belongs to; empty: all.
    pub sets: &'static [&'static str],
    /// Whether it has to be given, within its sets.
    pub required: bool,
    /// Its position among values without a name, from 0 on.
    pub position: Option<usize>,
    /// Whether the objects of a pipeline stand for it.
    pub pipeline: bool,
    /// What holds when it is left out; empty when that needs no word.
    pub default: &'static str,
    /// What it means.
    pub says: &'static str,
    /// Whether it does something here.
    pub here: Here,
}

/// Whether a parameter of the reference does something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// It does.
    Does,
    /// It is accepted and does nothing; the sentence says why.
    Nothing(&'static str),
    /// It is refused, because to ignore it would be dangerous; the sentence says why.
    Refused(&'static str),
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A text that names a pool, host, server or service.
    Name(Names),
    /// Nothing: that it is there says all. `-Switch:$False` takes it back.
    Switch,
    /// `$True` or `$False`.
    Truth,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Several texts.
    Texts,
    /// A table `@{…}`.
    Table,
    /// A change of a list: `@{Add=…}`, `@{Remove=…}`, `@{Replace=…}`, values for the whole list, or `$Null` for none.
    ListChange,
    /// An object of a pipeline.
    Object,
}

/// What a name names, for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// The pool.
    Pool,
    /// The pool with a role before it: `service:` or `PersistentChatServer:`.
    Service,
    /// A host.
    Host,
    /// A chat server.
    Server,
}

impl Kind {
    /// What it takes, in the words of the reference.
    pub fn word(self) -> String {
        match self {
            Kind::Text | Kind::Name(_) => "string".into(),
            Kind::Switch => "switch".into(),
            Kind::Truth => "$True | $False".into(),
            Kind::Choice(words) => words.join(" | "),
            Kind::Texts => "string[]".into(),
            Kind::Table => "table".into(),
            Kind::ListChange => "@{Add | Remove | Replace = …} | string[] | $Null".into(),
            Kind::Object => "object".into(),
        }
    }
}

impl Parameter {
    /// A parameter in all sets that need not be given.
    pub const fn new(name: &'static str, kind: Kind, says: &'static str) -> Self {
        Self {
            name,
            kind,
            sets: &[],
            required: false,
            position: None,
            pipeline: false,
            default: "",
            says,
            here: Here::Does,
        }
    }

    /// It has to be given.
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// It belongs to these sets.
    pub const fn only_in(self, sets: &'static [&'static str]) -> Self {
        Self { sets, ..self }
    }

    /// It may be given without its name, at this position.
    pub const fn at(self, position: usize) -> Self {
        Self { position: Some(position), ..self }
    }

    /// What holds without it.
    pub const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// The objects of a pipeline stand for it.
    pub const fn piped(self) -> Self {
        Self { pipeline: true, ..self }
    }

    /// It is accepted and does nothing here.
    pub const fn nothing(self, why: &'static str) -> Self {
        Self { here: Here::Nothing(why), ..self }
    }

    /// It is refused here.
    pub const fn refused(self, why: &'static str) -> Self {
        Self { here: Here::Refused(why), ..self }
    }
}

/// `-Confirm` and `-WhatIf`, of every cmdlet that changes something.
pub const OF_CHANGES: &[Parameter] = &[
    Parameter::new("Confirm", Kind::Switch, "Ask before anything is done; -Confirm:$False does not ask.")
        .or("not asked"),
    Parameter::new("WhatIf", Kind::Switch, "Say what would be done, and do nothing."),
];

/// Parameters that every cmdlet of PowerShell takes.
pub const COMMON: &[Parameter] = &[
    Parameter::new("Verbose", Kind::Switch, "Say more.").nothing("every step is shown anyway"),
    Parameter::new("Debug", Kind::Switch, "Show more for programmers.").nothing("STANDFAST_LOG chooses what is logged"),
    Parameter::new(
        "ErrorAction",
        Kind::Choice(&["Stop", "Continue", "SilentlyContinue", "Inquire"]),
        "What a failure does.",
    )
    .nothing("a statement that fails ends a script; at the prompt the next one can be typed"),
];

impl Cmdlet {
    /// Every parameter: its own, those of every change, the common ones.
    pub fn all_parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        let changes: &'static [Parameter] = if self.changes { OF_CHANGES } else { &[] };
        self.parameters.iter().chain(changes).chain(COMMON)
    }
}
