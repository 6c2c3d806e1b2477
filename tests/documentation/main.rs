//! What the documents say is so: the tables of the socket are made of the code, the OpenAPI document is
//! held against a running server, and what documents point at is there.

mod events;
mod links;
mod openapi;
mod samples;
