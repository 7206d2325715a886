void main() {
  print('OK');
}
