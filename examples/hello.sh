# Text tools work as they do outside. 🐚
echo "🐚 Hello from Bash $BASH_VERSION!"

poem='the quick brown fox jumps over the lazy dog while the dog dreams of the fox'
echo "The commonest words of a poem:"
tr ' ' '\n' <<<"$poem" | sort | uniq -c | sort -k1,1nr -k2 | head -3

echo "This folder is mine alone, and gone afterwards:"
echo "remember me" >note.txt
ls note.txt && wc -c <note.txt
