@text = private constant [3 x i8] c"OK\00"
declare i32 @puts(ptr)

define i32 @main() {
  call i32 @puts(ptr @text)
  ret i32 0
}
