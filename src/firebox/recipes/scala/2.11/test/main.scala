object Main {
  case class Letter(value: String)

  def main(args: Array[String]): Unit = println(List(Letter("O"), Letter("K")).map(_.value).mkString)
}
