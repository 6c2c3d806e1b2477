//! People: who there is, how they are called, and who follows whom. Either the platform's, asked by
//! HTTP, or own accounts.
