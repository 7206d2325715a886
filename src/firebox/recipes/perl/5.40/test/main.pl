use v5.36;
use JSON::PP;
use List::Util qw(sum);
use Time::HiRes;

say "OK" if sum(@{decode_json("[1, 2]")}) == 3;
