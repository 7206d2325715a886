int main() { write(upper_case("ok\n")); }
