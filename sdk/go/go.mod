module spore

go 1.22
