"""What all packages share: settings, the shapes of a book, the tables, the errors. Imports no other package of ours."""
