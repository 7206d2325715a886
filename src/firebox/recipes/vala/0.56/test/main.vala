void main() {
    print("%s\n", "ok".up());
}
