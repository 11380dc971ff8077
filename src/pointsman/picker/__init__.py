"""The endpoint picker: for each request, which model server should answer."""
