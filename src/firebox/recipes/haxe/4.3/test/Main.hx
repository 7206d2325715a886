class Main {
  static function main() {
    Sys.println("ok".toUpperCase());
  }
}
