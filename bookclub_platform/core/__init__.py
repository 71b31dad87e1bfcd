"""What all share: settings, the shapes of a book, the tables, the errors. Imports nothing else of ours."""
