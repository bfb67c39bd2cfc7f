//! Which objects an event is about beside its own stream, as data: for process mining.
//!
//! Invariant: a declaration changes nothing of what is decided or recorded, and may be changed at any
//! time. Deliberately absent: what is made of it (`annals export ocel`).

/// What the events of one type say about objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventObjects {
    /// The frozen name of the event's type.
    pub event: &'static str,
    /// The objects that it names.
    pub relates: &'static [Relates],
    /// The attributes of its own stream's object that it sets.
    pub sets: &'static [Sets],
}

/// A field of an event that names objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relates {
    /// The field: names separated by `/`, where `*` stands for each element of a list.
    pub field: &'static str,
    /// The type of the objects. If it is a category, an object is the stream with this id.
    pub object: &'static str,
    /// What the object is to the event's own stream, such as `placed by`.
    pub qualifier: &'static str,
}

/// A field of an event that becomes an attribute of its stream's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sets {
    /// The field: names separated by `/`.
    pub field: &'static str,
    /// The name of the attribute.
    pub attribute: &'static str,
}

/// What the events of a type say about objects.
#[must_use]
pub const fn objects_of(
    event: &'static str,
    relates: &'static [Relates],
    sets: &'static [Sets],
) -> EventObjects {
    EventObjects {
        event,
        relates,
        sets,
    }
}

/// A field that names objects of a type, and what they are to the event's own stream.
#[must_use]
pub const fn relates(
    field: &'static str,
    object: &'static str,
    qualifier: &'static str,
) -> Relates {
    Relates {
        field,
        object,
        qualifier,
    }
}

/// A field that becomes an attribute of this name.
#[must_use]
pub const fn sets(field: &'static str, attribute: &'static str) -> Sets {
    Sets { field, attribute }
}
