:- module main.
:- interface.
:- import_module io.
:- pred main(io::di, io::uo) is det.
:- implementation.
:- import_module string.

main(!IO) :- io.write_string(to_upper("ok\n"), !IO).
