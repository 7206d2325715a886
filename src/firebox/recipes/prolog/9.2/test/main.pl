:- initialization((upcase_atom(ok, Word), write(Word), nl)).
