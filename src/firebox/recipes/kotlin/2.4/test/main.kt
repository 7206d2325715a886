data class Letter(val value: String)

fun main() = println(listOf(Letter("O"), Letter("K")).joinToString("") { it.value })
